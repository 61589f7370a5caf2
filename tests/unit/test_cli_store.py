"""`alpha-ren queue`: backup, restore, check, compact, keys."""

import os
from pathlib import Path

import msgspec
import pytest

from appliance.contracts.letters import BackedUp, Checked, Compacted
from appliance.contracts.machine import Rotate, Rotated
from tests.unit.supervisor.queue_asked import Supervisor


def test_a_backup_is_copied_to_where_it_is_wanted(
    supervisor: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, wanted = tmp_path / "made", tmp_path / "wanted"
    made.write_bytes(b"the store")
    supervisor.will_say("queue.backup", BackedUp(path=str(made), size=9, at=1_790_000_000.0))
    assert supervisor.run("backup", str(wanted)) == 0
    assert str(wanted) in capsys.readouterr().out
    assert wanted.read_bytes() == b"the store"
    assert wanted.stat().st_mode & 0o777 == 0o600
    assert supervisor.run("backup") == 0
    assert str(made) in capsys.readouterr().out
    assert supervisor.run("backup", str(tmp_path / "none" / "x")) == 1
    assert capsys.readouterr().err.startswith("copy-not-kept: ")


def test_a_backup_replaces_nothing_but_files(
    supervisor: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "made").write_bytes(b"the store")
    supervisor.will_say("queue.backup", BackedUp(path=str(tmp_path / "made"), size=9, at=0.0))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for wanted in ("pipe", "link", ".", ""):
        assert supervisor.run("backup", str(tmp_path / wanted) if wanted else "") == 1
        assert capsys.readouterr().err.startswith("copy-not-kept: ")
    assert (tmp_path / "link").is_fifo()


def test_a_backup_follows_a_link_and_touches_no_other_file(supervisor: Supervisor, tmp_path: Path) -> None:
    for name in ("made", "wanted", "wanted.new"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "link").symlink_to("wanted")
    supervisor.will_say("queue.backup", BackedUp(path=str(tmp_path / "made"), size=9, at=0.0))
    before = set(tmp_path.iterdir())
    assert supervisor.run("backup", str(tmp_path / "link")) == 0
    assert ((tmp_path / "link").is_symlink(), (tmp_path / "wanted").read_bytes()) == (True, b"made")
    assert (tmp_path / "wanted.new").read_bytes() == b"wanted.new"
    assert set(tmp_path.iterdir()) == before


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What systemd is told, which is not there to hear it."""
    told: list[list[str]] = []
    monkeypatch.setattr("appliance.cli_store.subprocess.run", lambda command, **_: told.append(command))
    return told


def test_a_backup_is_left_where_the_broker_takes_it_up_when_it_starts(
    supervisor: Supervisor, tmp_path: Path, restarts: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backup").write_bytes(b"the store")
    arguments = ("restore", str(tmp_path / "backup"), "--directory", str(tmp_path))
    assert supervisor.run(*arguments) == 2
    assert capsys.readouterr().err.startswith("not-confirmed: ")
    assert (restarts, (tmp_path / "restore.sqlite").exists()) == ([], False)
    assert supervisor.run(*arguments, "--yes") == 0
    assert (tmp_path / "restore.sqlite").read_bytes() == b"the store"
    assert restarts == [["systemctl", "restart", "alpha-ren-queue.service"]]
    assert str(tmp_path / "replaced.sqlite") in capsys.readouterr().out


def test_a_backup_that_the_broker_refuses_is_told(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backup").write_bytes(b"anything")
    candidate, refused = tmp_path / "restore.sqlite", tmp_path / "refused.sqlite"
    monkeypatch.setattr("appliance.cli_store.subprocess.run", lambda *_, **__: candidate.rename(refused))
    for _ in range(2):
        assert supervisor.run("restore", str(tmp_path / "backup"), "--yes", "--directory", str(tmp_path)) == 2
        assert capsys.readouterr().err.startswith("not-restored: ")
    assert supervisor.run("restore", str(tmp_path / "none"), "--yes") == 2


def test_what_was_replaced_or_refused_before_can_be_restored(
    supervisor: Supervisor, tmp_path: Path, restarts: list[list[str]]
) -> None:
    """A store that was not closed has its logs beside it, which are a part of it."""
    found = {}
    for name in ("replaced.sqlite", "refused.sqlite"):
        for beside in ("refused.sqlite", "replaced.sqlite", "replaced.sqlite-wal", "replaced.sqlite-redo1"):
            (tmp_path / beside).write_bytes(beside.encode())
        assert supervisor.run("restore", str(tmp_path / name), "--yes", "--directory", str(tmp_path)) == 0
        found[name] = {path.name: path.read_text() for path in tmp_path.glob("restore.*")}
    assert found == {
        "replaced.sqlite": {f"restore.sqlite{suffix}": f"replaced.sqlite{suffix}" for suffix in ("", "-wal", "-redo1")},
        "refused.sqlite": {"restore.sqlite": "refused.sqlite"},
    }
    assert len(restarts) == 2


def test_the_queue_is_no_backup_of_itself(
    supervisor: Supervisor, tmp_path: Path, restarts: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "queue.sqlite").write_bytes(b"the store")
    (tmp_path / "link").symlink_to("queue.sqlite")
    assert supervisor.run("restore", str(tmp_path / "link"), "--yes", "--directory", str(tmp_path)) == 2
    assert capsys.readouterr().err.startswith("invalid-input: ")
    assert restarts == []


@pytest.mark.parametrize(
    ("problems", "status", "shown"),
    [((), 0, "The store is sound.\n"), (("A page is torn.", "So is another."), 1, "A page is torn.\nSo is another.\n")],
)
def test_a_check_is_zero_only_for_a_sound_store(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], problems: tuple[str, ...], status: int, shown: str
) -> None:
    supervisor.will_say("queue.check", Checked(problems=problems))
    assert supervisor.run("check") == status
    assert capsys.readouterr().out == shown


def test_compacting_goes_on_until_there_is_no_more(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.will_say("queue.compact", Compacted(pages=1000), Compacted(pages=34))
    assert supervisor.run("compact") == 0
    assert capsys.readouterr().out == "1034 unused pages given back to the disk.\n"


def test_the_key_is_rotated_only_when_that_is_agreed_to(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.will_say("queue.rotate-key", Rotated(steps=3))
    assert supervisor.run("rotate-key") == 2
    assert supervisor.run("rotate-key", "--yes") == 0
    assert capsys.readouterr().out == "The broker has its next key, 3 steps taken.\n"


def test_the_bridge_gets_its_next_key_once_the_other_clusters_know_it(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.will_say("queue.rotate-key", Rotated(steps=4))
    assert supervisor.run("rotate-key", "--bridge") == 2
    assert "`next_key`" in capsys.readouterr().err
    assert supervisor.run("rotate-key", "--bridge", "--yes") == 0
    assert capsys.readouterr().out == "The bridge has its next key, 4 steps taken.\n"
    assert msgspec.json.decode(supervisor.stub.asked[-1][1], type=Rotate).instance == "bridge"

"""A backup that takes the place of the store: whole or not at all, and nobody's old token fits it."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from appliance.queue import restore, wire
from appliance.queue.errors import NO_ROOM, LogDamaged, StoreFailed, StoreFull
from appliance.queue.logged_store import open_store
from appliance.queue.restore import BESIDE, REFUSED, REPLACED, RESTORE, STORE, take_up
from appliance.queue.schema import STEPS
from tests.unit.queue.desk import Desk


def held(path: Path) -> list[str]:
    """Return the ids of the messages in a store."""
    with contextlib.closing(open_store(path)) as store:
        return sorted(brief.id for brief in store.recent(100))


def back_up(desk: Desk) -> None:
    """Leave a copy of the store where the next start finds it."""
    with contextlib.closing(desk.store.still()) as still:
        still.copy(desk.directory / RESTORE)


def killed(desk: Desk) -> None:
    """Leave the files as a kill would."""
    left = {path: path.read_bytes() for path in desk.directory.glob(f"{STORE}*")}
    desk.store.close()
    for path, content in left.items():
        path.write_bytes(content)


def leave_backup_beside(directory: Path) -> None:
    """Leave a store with two messages as a kill would, and a backup of when it had one."""
    desk = Desk(directory)
    desk.hello("alice")
    desk.publish("alice", wire.Item("a", "1"))
    back_up(desk)
    desk.publish("alice", wire.Item("a", "2"))
    killed(desk)


def test_without_a_backup_the_store_is_what_it_was(tmp_path: Path) -> None:
    assert take_up(tmp_path) == tmp_path / STORE
    assert list(tmp_path.iterdir()) == []


def test_a_backup_takes_the_place_of_the_store_which_is_kept_with_its_log(tmp_path: Path) -> None:
    leave_backup_beside(tmp_path)
    assert take_up(tmp_path) == tmp_path / STORE
    assert held(tmp_path / STORE) == ["1"]
    assert held(tmp_path / REPLACED) == ["1", "2"]
    assert take_up(tmp_path) == tmp_path / STORE, "it is taken up once"
    assert held(tmp_path / STORE) == ["1"]


def test_a_store_that_was_not_closed_is_restored_with_what_only_its_log_has(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hello("alice")
    desk.publish("alice", wire.Item("a", "1"))
    for suffix in ("", *BESIDE):  # as a kill would leave it
        (tmp_path / f"{RESTORE}{suffix}").write_bytes((tmp_path / f"{STORE}{suffix}").read_bytes())
    desk.publish("alice", wire.Item("a", "2"))
    desk.store.close()
    take_up(tmp_path)
    assert held(tmp_path / STORE) == ["1"]
    assert held(tmp_path / REPLACED) == ["1", "2"]
    assert [path for path in tmp_path.iterdir() if path.name.startswith(RESTORE)] == []


def test_a_store_whose_log_is_damaged_is_restored_without_it_as_its_error_says(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hello("alice")
    desk.publish("alice", wire.Item("a", "1"))
    desk.store.compact(0)  # which hands the log over
    for body in (b"second", b"third", b"fourth"):
        desk.publish("alice", wire.Item("a", body.decode()), body)
    killed(desk)
    for path in tmp_path.glob(f"{STORE}-redo*"):
        path.write_bytes(path.read_bytes().replace(b"third", b"Third"))
    aside = tmp_path / "aside"
    aside.mkdir()
    with pytest.raises(LogDamaged, match="does not go on") as caught:
        open_store(tmp_path / STORE)
    assert "without the queue.sqlite-redo* beside it" in caught.value.hint
    for path in tmp_path.glob("queue.sqlite*"):
        path.replace(aside / path.name)
    for path in aside.iterdir():
        if "-redo" not in path.name:
            path.replace(tmp_path / path.name.replace(STORE, RESTORE))
    take_up(tmp_path)
    assert held(tmp_path / STORE) == ["1"]


MOVED = (STORE, *(f"{STORE}{suffix}" for suffix in BESIDE))


@pytest.mark.parametrize("moved", [MOVED[:number] for number in range(len(MOVED) + 1)])
def test_a_restore_that_was_cut_off_is_finished_by_the_next_start(tmp_path: Path, moved: tuple[str, ...]) -> None:
    leave_backup_beside(tmp_path)
    for name in moved:
        (tmp_path / name).rename(tmp_path / name.replace(STORE, REPLACED))
    take_up(tmp_path)
    assert held(tmp_path / STORE) == ["1"]
    assert held(tmp_path / REPLACED) == ["1", "2"]


def test_a_restore_that_was_cut_off_is_not_given_up_for_an_error_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_backup_beside(tmp_path)
    (tmp_path / STORE).rename(tmp_path / REPLACED)

    def full(_candidate: Path) -> list[str]:
        raise StoreFull(NO_ROOM)

    with monkeypatch.context() as patch:
        patch.setattr(restore, "_problems", full)
        with pytest.raises(StoreFailed, match="no room"):
            take_up(tmp_path)
    take_up(tmp_path)
    assert held(tmp_path / STORE) == ["1"]
    assert held(tmp_path / REPLACED) == ["1", "2"]


def test_a_lease_from_before_is_worth_nothing_and_no_number_comes_twice(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hello("alice")
    desk.hello("bob")
    desk.publish("alice", wire.Item("a", "leased"))
    desk.consume("bob", "a", credit=5)
    tokens = [handed.token for handed in desk.deliveries("bob")]
    desk.send("bob", wire.Cancel(5))
    desk.publish("alice", wire.Item("a", "waiting"))
    back_up(desk)
    desk.consume("bob", "a", credit=5)
    desk.publish("alice", wire.Item("a", "later"))
    tokens += [handed.token for handed in desk.deliveries("bob")]
    assert len(tokens) == 3
    desk.store.close()

    take_up(tmp_path)
    desk.start()
    desk.hello("alice")
    desk.hello("bob")
    desk.publish("alice", wire.Item("a", "new"))
    desk.consume("bob", "a", credit=5, held=tuple(tokens))
    assert [desk.settle("bob", token) for token in tokens] == [wire.STALE] * 3
    handed = desk.deliveries("bob")
    for _ in range(int(desk.settings.lease_s) + 1):
        desk.clock.advance(1.0)
        desk.send("bob", wire.Heartbeat(tuple(h.token for h in handed)))
        handed += desk.deliveries("bob")
    assert {h.id for h in handed} == {"leased", "waiting", "new"}
    assert max(h.token[0] for h in handed) > max(seq for seq, _ in tokens)
    assert [desk.settle("bob", h.token) for h in handed] == [wire.STORED] * 3
    desk.store.close()


def test_what_is_no_sound_backup_is_set_aside_and_changes_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hello("alice")
    desk.publish("alice", wire.Item("a", "1"))
    back_up(desk)
    desk.store.close()
    copy = tmp_path / RESTORE
    torn = bytearray(copy.read_bytes())
    torn[len(torn) // 2 :] = b"\xff" * (len(torn) - len(torn) // 2)
    for content in (b"not a store", bytes(torn)):
        copy.write_bytes(content)
        take_up(tmp_path)
        assert held(tmp_path / STORE) == ["1"]
        assert (tmp_path / REFUSED).exists()
        assert not copy.exists()


STRANGE = {
    "another program's": "CREATE TABLE bookmarks (title TEXT)",
    "without its tables": "PRAGMA user_version = 2",
    "of a newer firmware": f"PRAGMA user_version = {len(STEPS) + 1}",
}
HURT = {
    "without its clock": "DELETE FROM clock",
    "without a column": "ALTER TABLE work DROP COLUMN waybill",
    "without an index": "DROP INDEX work_settled",
    "with a trigger": "CREATE TRIGGER loss AFTER INSERT ON work BEGIN DELETE FROM work; END",
    "with a count that is none": "UPDATE counts SET ready = 'many'",
}


@pytest.mark.parametrize("script", [*STRANGE.values(), *HURT.values(), ""], ids=[*STRANGE, *HURT, "empty"])
def test_what_is_no_store_of_this_firmware_is_set_aside_and_changes_nothing(tmp_path: Path, script: str) -> None:
    desk = Desk(tmp_path)
    desk.hello("alice")
    desk.publish("alice", wire.Item("a", "1"))
    if script in HURT.values():
        back_up(desk)
    desk.store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / RESTORE)) as db:
        db.executescript(script)
    take_up(tmp_path)
    assert held(tmp_path / STORE) == ["1"]
    assert (tmp_path / REFUSED).exists()


def test_a_disk_without_room_for_a_backup_does_not_keep_the_store_from_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    desk.hello("alice")
    desk.publish("alice", wire.Item("a", "1"))
    back_up(desk)
    desk.store.close()
    monkeypatch.setattr(restore, "ESTRANGE", "PRAGMA max_page_count = 1; CREATE TABLE t AS SELECT zeroblob(1000000)")
    take_up(tmp_path)
    assert held(tmp_path / STORE) == ["1"]
    assert (tmp_path / REFUSED).exists()

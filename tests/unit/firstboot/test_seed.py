"""The seed: put in force once, and never in the way of what is already in force."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from appliance import config
from appliance.contracts.machine import SeedRefusal
from firstboot.seed import MOST_BYTES, Outcome, Seed, SeedUnreadable, import_seed, offered, read_disk

GOOD = b'# mine\n[machine]\nname = "box-1"\n'
OTHER = b'[machine]\nname = "box-2"\n'
BAD = b'[machine]\nnaem = "box-1"\n'
NOW = 1_790_000_000.0


def put(state: Path, content: bytes, *, now: float = NOW) -> Outcome:
    return import_seed(state, Seed("credential", lambda: content), now=now)


def refusal(state: Path) -> SeedRefusal | None:
    path = state / "seed-refused.json"
    return msgspec.json.decode(path.read_bytes(), type=SeedRefusal) if path.exists() else None


def in_force(state: Path) -> bytes:
    return (state / "config.toml").read_bytes()


def test_a_good_seed_is_put_in_force_as_it_was_written(tmp_path: Path) -> None:
    assert put(tmp_path, GOOD) == "applied"
    assert in_force(tmp_path) == GOOD
    assert config.load(tmp_path / "config.toml").machine.name == "box-1"


def test_without_a_seed_nothing_is_written(tmp_path: Path) -> None:
    assert import_seed(tmp_path, None, now=NOW) == "none"
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_again_leaves_what_a_person_changed_since(tmp_path: Path) -> None:
    put(tmp_path, GOOD)
    (tmp_path / "config.toml").write_bytes(OTHER)
    assert put(tmp_path, GOOD) == "unchanged"
    assert in_force(tmp_path) == OTHER


def test_another_seed_is_put_in_force(tmp_path: Path) -> None:
    put(tmp_path, GOOD)
    assert put(tmp_path, OTHER) == "applied"
    assert in_force(tmp_path) == OTHER


def test_a_seed_whose_configuration_is_gone_is_put_in_force_again(tmp_path: Path) -> None:
    put(tmp_path, GOOD)
    (tmp_path / "config.toml").unlink()
    assert put(tmp_path, GOOD) == "applied"


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (BAD, "invalid-config", "naem"),
        (b"[machine", "invalid-config", "not valid"),
        (b"version = 99\n", "invalid-config", "version 99"),
        (b"\xff\xfe", "seed-unreadable", "UTF-8"),
    ],
)
def test_a_seed_that_does_not_validate_changes_nothing_and_is_remembered(
    tmp_path: Path, content: bytes, code: str, says: str
) -> None:
    put(tmp_path, GOOD)
    assert put(tmp_path, content, now=NOW + 1) == "refused"
    assert in_force(tmp_path) == GOOD
    kept = refusal(tmp_path)
    assert kept is not None
    assert (kept.source, kept.at) == ("credential", NOW + 1)
    assert kept.digest == hashlib.sha256(content).hexdigest()
    assert kept.problem.code == code
    assert says in kept.problem.message
    assert kept.problem.hint


@pytest.mark.parametrize("then", [GOOD, OTHER, None], ids=["the one in force", "a new one", "none"])
def test_a_refusal_is_forgotten_when_the_seed_is_in_order_again(tmp_path: Path, then: bytes | None) -> None:
    put(tmp_path, GOOD)
    put(tmp_path, BAD)
    assert refusal(tmp_path) is not None
    import_seed(tmp_path, None if then is None else Seed("disk", lambda: then), now=NOW)
    assert refusal(tmp_path) is None


def test_a_power_cut_between_configuration_and_record_only_applies_the_seed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace
    with monkeypatch.context() as patch:

        def cut(source: Path, target: Path) -> None:
            if target.name == "seed.json":
                raise KeyboardInterrupt
            real(source, target)

        patch.setattr(os, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            put(tmp_path, GOOD)
    assert in_force(tmp_path) == GOOD
    assert put(tmp_path, GOOD) == "applied"
    assert put(tmp_path, GOOD) == "unchanged"


def test_a_full_disk_leaves_the_configuration_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, GOOD)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        put(tmp_path, OTHER)
    assert in_force(tmp_path) == GOOD
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_credential_comes_before_the_disk_and_the_disk_before_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "ALPHAREN-SEED"
    assert offered(tmp_path, disk) is None
    disk.touch()
    found = offered(tmp_path, disk)
    assert found is not None
    assert found.source == "disk"
    (tmp_path / "alpha-ren.config").write_bytes(GOOD)
    found = offered(tmp_path, disk)
    assert found is not None
    assert found.source == "credential"
    assert found.read() == GOOD


def test_a_seed_larger_than_any_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "alpha-ren.config").write_bytes(b"#" * (MOST_BYTES + 1))
    assert import_seed(tmp_path, offered(tmp_path, tmp_path / "no disk"), now=NOW) == "refused"
    kept = refusal(tmp_path)
    assert kept is not None
    assert kept.problem.code == "seed-unreadable"


def test_a_disk_without_a_file_system_is_refused_with_a_hint(tmp_path: Path) -> None:
    disk = tmp_path / "ALPHAREN-SEED"
    disk.write_bytes(b"\0" * 4096)
    with pytest.raises(SeedUnreadable) as caught:
        read_disk(disk)
    assert "appliance.toml" in caught.value.problem.hint
    assert import_seed(tmp_path, offered(tmp_path, disk), now=NOW) == "refused"


@pytest.fixture
def seed_disk(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Return a function that makes an image of an ext4 file system with these files at its top."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("mounting an image needs root and loop devices")

    def make(files: dict[str, bytes]) -> Path:
        content = tmp_path / "content"
        content.mkdir()
        for name, text in files.items():
            (content / name).write_bytes(text)
        image = tmp_path / "seed.img"
        with image.open("wb") as file:
            file.truncate(8 * 1024 * 1024)
        command = ["mke2fs", "-q", "-t", "ext4", "-L", "ALPHAREN-SEED", "-d", str(content), str(image)]
        subprocess.run(command, check=True, timeout=60, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        return image

    return make


def test_a_seed_disk_is_read_and_left_as_it_was(
    tmp_path: Path, seed_disk: Callable[[dict[str, bytes]], Path]
) -> None:
    disk = seed_disk({"appliance.toml": GOOD})
    before = hashlib.sha256(disk.read_bytes()).digest()
    assert import_seed(tmp_path, offered(tmp_path, disk), now=NOW) == "applied"
    assert in_force(tmp_path) == GOOD
    assert hashlib.sha256(disk.read_bytes()).digest() == before
    assert "alpha-ren-seed" not in Path("/proc/mounts").read_text(encoding="utf-8")


def test_a_seed_disk_without_a_configuration_is_refused(
    tmp_path: Path, seed_disk: Callable[[dict[str, bytes]], Path]
) -> None:
    disk = seed_disk({"readme.txt": b"nothing"})
    assert import_seed(tmp_path, offered(tmp_path, disk), now=NOW) == "refused"
    kept = refusal(tmp_path)
    assert kept is not None
    assert kept.problem.code == "seed-unreadable"
    assert "alpha-ren-seed" not in Path("/proc/mounts").read_text(encoding="utf-8")

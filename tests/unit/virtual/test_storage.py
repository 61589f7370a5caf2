"""What a machine keeps between runs."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.virtual.errors import ImageMissing, MachineBusy
from scripts.virtual.firmware import Firmware
from scripts.virtual.storage import Origin, Storage

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk image of 1 MiB."""
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(1 << 20))
    return path


def prepare(storage: Storage, image: Path, *, fresh: bool = False) -> Origin:
    """Prepare under the lock."""
    with storage.lock():
        return asyncio.run(storage.prepare(image, Firmware(), fresh=fresh))


def scribble(storage: Storage) -> None:
    """Write to the disk as a guest would."""
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 0 4096", str(storage.disk)], check=True, timeout=60)


def first_bytes(disk: Path) -> bytes:
    """The first four bytes a guest would read."""
    copy = disk.with_suffix(".copy")
    subprocess.run(
        ["qemu-img", "dd", "-O", "raw", f"if={disk}", f"of={copy}", "bs=512", "count=1"], check=True, timeout=60
    )
    return copy.read_bytes()[:4]


def test_a_disk_is_kept_between_runs_and_the_image_is_never_written(tmp_path: Path, image: Path) -> None:
    storage = Storage(tmp_path / "run")
    before = image.read_bytes()
    assert prepare(storage, image) is Origin.NEW
    scribble(storage)
    assert prepare(storage, image) is Origin.KEPT
    assert first_bytes(storage.disk) == b"ZZZZ"
    assert image.read_bytes() == before


def test_fresh_discards_the_disk(tmp_path: Path, image: Path) -> None:
    storage = Storage(tmp_path / "run")
    prepare(storage, image)
    scribble(storage)
    assert prepare(storage, image, fresh=True) is Origin.NEW
    assert first_bytes(storage.disk) == image.read_bytes()[:4]


def test_a_rebuilt_image_means_a_new_machine_and_the_former_one_stays_whole(tmp_path: Path, image: Path) -> None:
    storage = Storage(tmp_path / "run")
    prepare(storage, image)
    scribble(storage)
    rebuilt = tmp_path / "rebuilt.raw"
    rebuilt.write_bytes(bytes(1 << 20))
    rebuilt.replace(image)
    assert prepare(storage, image) is Origin.REPLACED
    assert first_bytes(storage.disk) == bytes(4)
    assert first_bytes(tmp_path / "run" / "previous" / "disk.qcow2") == b"ZZZZ"


def test_a_half_made_machine_is_made_anew(tmp_path: Path, image: Path) -> None:
    storage = Storage(tmp_path / "run")
    prepare(storage, image)
    (tmp_path / "run" / "machine.json").write_text("{")
    assert prepare(storage, image) is Origin.NEW


def test_a_missing_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageMissing):
        prepare(Storage(tmp_path / "run"), tmp_path / "nothing.raw")


def test_a_second_run_is_refused_and_names_the_first(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "run")
    attempt = (
        "import sys; from pathlib import Path; from scripts.virtual.storage import Storage\n"
        "with Storage(Path(sys.argv[1])).lock(): print('got it')"
    )
    command = [sys.executable, "-c", attempt, str(tmp_path / "run")]
    with storage.lock():
        with pytest.raises(MachineBusy, match=str(os.getpid())), Storage(tmp_path / "run").lock():
            pass
        refused = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert "machine-busy" in refused.stderr
    freed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert freed.stdout == "got it\n"

"""Outputs appear whole or not at all: made beside their place, then renamed; a stamp beside them says from what."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from scripts.building import command


def up_to_date(output: Path, digest: str) -> bool:
    """Whether the output is there, whole, and was made from these inputs."""
    stamp = stamp_of(output)
    return output.exists() and stamp.is_file() and stamp.read_text() == digest


def stamp_of(output: Path) -> Path:
    """The file that says from what an output was made; written after it, so without it there is no finished output."""
    return output.parent / f".{output.name}.inputs"


def publish(made: Path, output: Path, digest: str) -> None:
    """Puts a finished file or directory in its place; what was there before is gone only then."""
    stamp_of(output).unlink(missing_ok=True)
    if output.is_dir() and not output.is_symlink():
        remove(output)
    sync(made)
    move(made, output)
    _write_whole(stamp_of(output), digest)


def publish_directory(made: Path, link: Path, digest: str) -> Path:
    """Publishes a directory under a name of its own and points `link` to it.

    Who uses the one that was there before (a running lab) keeps it; the one before that is removed.
    """
    place = link.parent / f"{link.name}-{digest[:12]}"
    before = link.resolve() if link.is_symlink() else None
    if place.exists():
        remove(place)
    stamp_of(link).unlink(missing_ok=True)
    move(made, place)
    fresh = link.parent / f".{link.name}.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(place.name)
    fresh.rename(link)
    _write_whole(stamp_of(link), digest)
    for old in link.parent.glob(f"{link.name}-*"):
        if old not in (place, before):
            remove(old)
    return place


def move(made: Path, place: Path) -> None:
    """Renames; a directory that an image builder made as root can change its parent only as root."""
    if made.is_dir() and os.geteuid() != 0:
        subprocess.run(command.as_root(["mv", "--no-target-directory", str(made), str(place)]), check=True, timeout=300)
    else:
        made.rename(place)


def remove(path: Path) -> None:
    """Removes what an image builder that ran as root left."""
    if path.is_dir() and not path.is_symlink() and os.geteuid() != 0:
        subprocess.run(command.as_root(["rm", "-rf", "--one-file-system", str(path)]), check=True, timeout=300)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file is on the disk, so that a name never stands for half of it after a power cut."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lets one build at a time write below a folder; others wait and then find its output."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("  Another build is running; waiting for it …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_whole(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("w") as output:
        output.write(text)
        output.flush()
        os.fsync(output.fileno())
    partial.rename(file)

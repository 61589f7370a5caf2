"""Files that a power cut leaves either as they were or as they should be."""

import os
from pathlib import Path


def place(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make `path` hold `content`, on disk when this returns; a reader sees the old file or the new one (rename(2)).

    One writer for each path at a time: what an earlier one left when it was cut off is written anew.
    """
    candidate = path.with_name(f".{path.name}.new")
    candidate.unlink(missing_ok=True)
    try:
        write(candidate, content, mode=mode)
        os.replace(candidate, path)
    except OSError:
        candidate.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a new file and wait until its content is on disk; FileExistsError where there already is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def sync(path: Path) -> None:
    """Wait until a file's content is on disk, or a folder's own entries, without which a rename may be lost."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

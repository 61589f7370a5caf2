"""Files that a power cut leaves either as they were or as they should be."""

import os
import secrets
from pathlib import Path


def place(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make `path` hold `content`, on disk when this returns; a reader sees the old file or the new one (rename(2))."""
    candidate = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write(candidate, content, mode=mode)
        os.replace(candidate, path)
    except OSError:
        candidate.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a new file and wait until its content is on disk; FileExistsError where there already is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's own entries are on disk, without which a rename may be lost."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

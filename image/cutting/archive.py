"""cpio archives as the kernel unpacks them ("newc", Linux: Documentation/driver-api/early-userspace)."""

import stat
from collections.abc import Mapping
from pathlib import PurePosixPath

TRAILER = "TRAILER!!!"
FOLDER = stat.S_IFDIR | 0o755


class File:
    """What one name in the archive is: mode with the type of file, and bytes (of a link: where it points to)."""

    def __init__(self, mode: int, content: bytes = b"") -> None:
        self.mode = mode
        self.content = content


def link(target: str) -> File:
    """Return a symbolic link to `target`."""
    return File(stat.S_IFLNK | 0o777, target.encode())


def program(content: bytes) -> File:
    """Return a file that may be executed."""
    return File(stat.S_IFREG | 0o755, content)


def data(content: bytes) -> File:
    """Return a file that is only read."""
    return File(stat.S_IFREG | 0o644, content)


def write(files: Mapping[str, File]) -> bytes:
    """Return the archive of `files` by path (without a leading slash), with the folders above them, all root's.

    The same files give the same bytes: entries are sorted and have no time.
    """
    whole = {str(above): File(FOLDER) for name in files for above in PurePosixPath(name).parents if above.name}
    whole.update(files)
    entries = [_entry(number, name, file) for number, (name, file) in enumerate(sorted(whole.items()), start=1)]
    return b"".join([*entries, _entry(0, TRAILER, File(0))])


def _entry(number: int, name: str, file: File) -> bytes:
    """Inode, mode, owner, group, links, time, size, four device numbers, length of the name, no checksum."""
    path = name.encode() + b"\0"
    fields = (number, file.mode, 0, 0, 1, 0, len(file.content), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + path) + _padded(file.content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)

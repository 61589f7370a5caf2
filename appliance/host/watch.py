"""Directories that are watched for files that come, go or change (inotify(7)); changes inside of a file are told
at its close.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterable

from appliance.host.netns import KernelRefused

# inotify.h: IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF, and
# IN_ONLYDIR.
MASK = 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x01000000
NONBLOCK = 0o4000
CLOEXEC = 0o2000000
BUFFER = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryEvents:
    """`happened` is called with a sentence that names no file: whoever is woken looks anew."""

    def __init__(self, happened: Callable[[str], None]) -> None:
        self._happened = happened
        self._watched: dict[int, str] = {}
        self._descriptor = _libc.inotify_init1(NONBLOCK | CLOEXEC)
        if self._descriptor < 0:
            raise KernelRefused(f"The kernel refused to watch files: {os.strerror(ctypes.get_errno())}.")
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def follow(self, paths: Iterable[str]) -> None:
        """Watch these directories too; watching one twice is watching it once, one that is not there is left out."""
        for path in paths:
            watch = _libc.inotify_add_watch(self._descriptor, os.fsencode(path), MASK)
            if watch >= 0:
                self._watched[watch] = path

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        data = os.read(self._descriptor, BUFFER)
        seen: set[str] = set()
        offset = 0
        while offset + 16 <= len(data):
            watch = int.from_bytes(data[offset : offset + 4], "little", signed=True)
            length = int.from_bytes(data[offset + 12 : offset + 16], "little")
            name = data[offset + 16 : offset + 16 + length].rstrip(b"\0")
            offset += 16 + length
            # Candidates of ours that are about to be put in place.
            if not name.startswith(b"."):
                seen.add(self._watched.get(watch, "a directory"))
        for path in sorted(seen):
            self._happened(f"a file changed in {path}")

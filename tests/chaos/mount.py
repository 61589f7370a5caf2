"""The disk of `disk.py` as a file system: `/usr/bin/python3 -m tests.chaos.mount DIRECTORY BYTES` (Debian's
python3-pyfuse3).

Extended attributes of its root are the control panel: setting `user.fault` makes faults come and go, `user.cut` is the
power cut, and `user.syncs`, `user.unsynced` and `user.refused` can be read. Nothing is cached by the kernel.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyfuse3
import trio

from tests.chaos.disk import BLOCK, Disk
from tests.chaos.layer import NAME

ROOT: int = pyfuse3.ROOT_INODE
SYNC_S = 0.002
"""A disk takes its time, so that a kill meets a sync on its way."""


@contextmanager
def _answered() -> Iterator[None]:
    """Turn what the disk raises into what the kernel is told."""
    try:
        yield
    except OSError as error:
        raise pyfuse3.FUSEError(error.errno) from error
    except KeyError as error:
        raise pyfuse3.FUSEError(errno.ENOENT) from error


class Mounted(pyfuse3.Operations):  # type: ignore[misc]  # pyfuse3 is Debian's and has no types
    """The operations that SQLite and a shell need on one flat directory; handles are inode numbers."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self._disk = disk
        self._read: dict[bytes, Callable[[], int]] = {
            b"user.syncs": lambda: disk.syncs, b"user.unsynced": lambda: disk.unsynced,
            b"user.refused": lambda: disk.refused,
        }  # fmt: skip

    async def getattr(self, inode: int, _ctx: Any = None) -> Any:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.attr_timeout = entry.entry_timeout = 0
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        if inode == ROOT:
            entry.st_mode = stat.S_IFDIR | 0o755
            entry.st_nlink = 2
            return entry
        with _answered():
            file = self._disk.files[inode]
        entry.st_mode = stat.S_IFREG | file.mode
        entry.st_nlink = 1 if inode in self._disk.names.values() else 0
        entry.st_size = len(file.content)
        entry.st_blksize = BLOCK
        entry.st_blocks = -(-len(file.content) // 512)
        return entry

    async def lookup(self, _parent: int, name: bytes, ctx: Any = None) -> Any:
        with _answered():
            number = self._disk.names[os.fsdecode(name)]
        return await self.getattr(number, ctx)

    async def setattr(self, inode: int, attr: Any, fields: Any, _fh: int | None, ctx: Any) -> Any:
        if inode != ROOT:
            with _answered():
                file = self._disk.files[inode]
            if fields.update_size:
                file.truncate(attr.st_size)
            if fields.update_mode:
                file.mode = stat.S_IMODE(attr.st_mode)
        return await self.getattr(inode, ctx)

    async def opendir(self, inode: int, _ctx: Any) -> int:
        return inode

    async def readdir(self, _fh: int, start: int, token: Any) -> None:
        for index, (name, number) in enumerate(list(self._disk.names.items())):
            if index >= start and not pyfuse3.readdir_reply(
                token, os.fsencode(name), await self.getattr(number), index + 1
            ):
                return

    async def open(self, inode: int, flags: int, _ctx: Any) -> Any:
        with _answered():
            file = self._disk.files[inode]
        file.opened += 1
        if flags & os.O_TRUNC:
            file.truncate(0)
        return pyfuse3.FileInfo(fh=inode, direct_io=True)

    async def create(self, _parent: int, name: bytes, mode: int, _flags: int, ctx: Any) -> Any:
        with _answered():
            number = self._disk.create(os.fsdecode(name), stat.S_IMODE(mode))
        self._disk.files[number].opened += 1
        return pyfuse3.FileInfo(fh=number, direct_io=True), await self.getattr(number, ctx)

    async def release(self, fh: int) -> None:
        if fh in self._disk.files:
            self._disk.files[fh].opened -= 1
            self._disk.tidy()

    async def flush(self, fh: int) -> None:
        """Nothing is kept back, so a close has nothing to do."""

    async def read(self, fh: int, at: int, length: int) -> bytes:
        with _answered():
            return bytes(self._disk.files[fh].content[at : at + length])

    async def write(self, fh: int, at: int, data: bytes) -> int:
        with _answered():
            return self._disk.write(fh, at, data)

    async def fsync(self, fh: int, _datasync: bool) -> None:
        await trio.sleep(SYNC_S)
        with _answered():
            self._disk.sync(fh)

    async def fsyncdir(self, _fh: int, _datasync: bool) -> None:
        with _answered():
            self._disk.sync_names()

    async def rename(self, _old_dir: int, old: bytes, _new_dir: int, new: bytes, flags: int, _ctx: Any) -> None:
        if flags:
            raise pyfuse3.FUSEError(errno.EINVAL)
        with _answered():
            self._disk.rename(os.fsdecode(old), os.fsdecode(new))

    async def unlink(self, _parent: int, name: bytes, _ctx: Any) -> None:
        with _answered():
            self._disk.unlink(os.fsdecode(name))

    async def statfs(self, _ctx: Any) -> Any:
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = BLOCK
        answer.f_blocks = self._disk.capacity // BLOCK
        answer.f_bfree = answer.f_bavail = self._disk.free // BLOCK
        answer.f_namemax = 255
        return answer

    async def access(self, _inode: int, _mode: int, _ctx: Any) -> bool:
        return True

    async def setxattr(self, inode: int, name: bytes, value: bytes, _ctx: Any) -> None:
        if inode != ROOT or name not in (b"user.fault", b"user.cut"):
            raise pyfuse3.FUSEError(errno.ENOTSUP)
        if name == b"user.cut":
            self._disk.cut(value.decode())
        elif value.decode() in ("none", "write", "sync", "full"):
            self._disk.fault = value.decode().replace("none", "")
        else:
            raise pyfuse3.FUSEError(errno.EINVAL)

    async def getxattr(self, inode: int, name: bytes, _ctx: Any) -> bytes:
        if inode != ROOT or name not in self._read:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return str(self._read[name]()).encode()


def main() -> None:
    """Serve until unmounted."""
    options = set(pyfuse3.default_options) | {f"fsname={NAME}"}
    options.discard("default_permissions")
    pyfuse3.init(Mounted(Disk(int(sys.argv[2]))), sys.argv[1], options)
    trio.run(pyfuse3.main)
    pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main()

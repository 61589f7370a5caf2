"""The redo log: what each turn does to the store, on disk before anybody is answered, to be done again after a crash.

A turn is one record: one write into a file that is as long already, and one fdatasync(2). Its pages and indexes can
wait until there are many turns to write them for.

Of two files one is written to, and the other is begun anew when the store has for good what is in it, so neither grows
without bound, and a disk that is full has room for turns. Each time it gets another salt, with which each record
begins: what was in it before, bodies of messages for one, is never taken for a turn, and behind damage the next
record is found.
"""

import errno
import os
import struct
import zlib
from pathlib import Path

from appliance.durable import sync
from appliance.queue.errors import NO_ROOM, LogDamaged, StoreFailed, StoreFull

MAGIC = b"ARREDO2\n"
"""The digit is the version of what follows."""
BEGIN = struct.Struct("<8s8s")
"""How a file begins: magic, salt."""
HEAD = struct.Struct("<8sQI")
"""How a record begins: the salt, the number of the turn, and how many bytes there are; then CHECK, then the bytes."""
CHECK = struct.Struct("<I")
"""CRC-32 of head and bytes."""
RECORD = HEAD.size + CHECK.size
FILE_BYTES = 4 * 2**20
"""So long is a file from its making on; one that is longer has had a large turn, and is cut as soon as it may be."""
FILES_PART = 4
"""The files are laid out where they take no more than this part of the free disk together."""
SUFFIXES = ("-redo0", "-redo1")


def files(store: Path) -> list[Path]:
    """Return the paths of a store's log."""
    return [store.with_name(store.name + suffix) for suffix in SUFFIXES]


def _check(head: bytes, content: bytes) -> bytes:
    return CHECK.pack(zlib.crc32(content, zlib.crc32(head)))


class RedoFile:
    """One of the two files; `last` is the newest turn in it, 0 where there is none. Raises StoreFailed.

    `found` is what was in it at the start.
    """

    def __init__(self, path: Path, *, lay_out: bool) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._failed(error) from error
        try:
            content = path.read_bytes()
            self._salt = _salt(content, path)
            self.found, self.end = _turns(content, self._salt)
            # What a failed sync left out reads well all the same, so it is written over itself: see rewrite_log.
            self._write(content, 0)
            if lay_out and len(content) < FILE_BYTES:
                self._write(bytes(FILE_BYTES - len(content)), len(content))
            os.fsync(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            raise self._failed(error) from error
        except StoreFailed:
            os.close(self._descriptor)
            raise
        self.last = self.found[-1][0] if self.found else 0
        self._size = max(len(content), FILE_BYTES if lay_out else 0)
        if not self.end:
            self._salt = os.urandom(8)

    def append(self, turn: int, content: bytes) -> None:
        """Return once the turn is on disk. Raises StoreFull, after which the file is as it was, StoreFailed."""
        begin = b"" if self.end else BEGIN.pack(MAGIC, self._salt)
        head = HEAD.pack(self._salt, turn, len(content))
        record = b"".join((begin, head, _check(head, content), content))
        try:
            self._write(record, self.end)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                self._cut(self._size)
                raise StoreFull(NO_ROOM) from error
            raise self._failed(error) from error
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise self._failed(error) from error
        self.end += len(record)
        self._size = max(self._size, self.end)
        self.last = turn

    @property
    def is_long(self) -> bool:
        """Whether it takes more of the disk than it needs."""
        return self._size > FILE_BYTES

    def _cut(self, size: int) -> None:
        try:
            if os.fstat(self._descriptor).st_size > size:
                os.ftruncate(self._descriptor, size)
        except OSError as error:
            raise self._failed(error) from error
        self._size = min(self._size, size)

    def _write(self, data: bytes, at: int) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, at)
            rest, at = rest[written:], at + written

    def _failed(self, error: OSError) -> StoreFailed:
        return StoreFailed(f"The queue's log {self._path.name} cannot be read or written: {error}.")

    def begin(self) -> None:
        """Write over what is in it from now on. Raises StoreFailed."""
        self._cut(FILE_BYTES)
        self._salt = os.urandom(8)
        self.end = 0

    def clear(self) -> None:
        """Leave nothing in it, on disk, for whatever firmware starts next. Raises StoreFailed."""
        self._cut(FILE_BYTES)
        try:
            self._write(bytes(BEGIN.size), 0)
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def _salt(content: bytes, path: Path) -> bytes:
    """Return the salt of a file, nothing where it is blank; raise StoreFailed where another firmware wrote it."""
    if len(content) < BEGIN.size or content.startswith(bytes(BEGIN.size)):
        return b""
    magic, salt = BEGIN.unpack_from(content)
    if magic != MAGIC:
        hint = "Let the firmware that wrote it start and stop once; it leaves nothing in it."
        raise StoreFailed(f"The queue's log {path.name} is not of this firmware.", hint=hint)
    mark = content[BEGIN.size : BEGIN.size + len(salt)]
    return bytes(salt) if _turn(content, mark, BEGIN.size) is None else mark  # where that is damaged


def _turns(content: bytes, salt: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """Return number and bytes of the turns in a file, and where the last one ends.

    The last may not have been written in full, and then it never was. Each is on disk before the next is written: one
    that is damaged among others is missing among them.
    """
    found: list[tuple[int, bytes]] = []
    end, at = 0, BEGIN.size if salt else -1
    while at >= 0:
        turn = _turn(content, salt, at)
        if turn is None:
            at = content.find(salt, at + 1)
        else:
            found.append(turn)
            at = end = at + RECORD + len(turn[1])
    return found, end


def _turn(content: bytes, salt: bytes, at: int) -> tuple[int, bytes] | None:
    """Return number and bytes of the turn whose record begins there; None where none does, or not all of it is there.
    """
    start = at + RECORD
    if len(content) < start:
        return None
    head = content[at : at + HEAD.size]
    mark, turn, length = HEAD.unpack(head)
    body = content[start : start + length]
    whole = mark == salt and len(body) == length and content[at + HEAD.size : start] == _check(head, body)
    return (turn, body) if whole else None


class RedoLog:
    """The log of the store at `path`, which is open already: so nobody else has it.

    `lay_out` makes the files as long as they become, where there is room.
    """

    def __init__(self, path: Path, *, lay_out: bool = False) -> None:
        self._files: list[RedoFile] = []
        self._secured = 0
        try:
            room = os.statvfs(path.parent)
            lay_out = lay_out and len(SUFFIXES) * FILE_BYTES * FILES_PART <= room.f_bavail * room.f_frsize
            for file in files(path):
                self._files.append(RedoFile(file, lay_out=lay_out))
            sync(path.parent)
        except OSError as error:
            self.close()
            raise StoreFailed(f"The queue's log cannot be made: {error}.") from error
        except StoreFailed:
            self.close()
            raise
        self._files.sort(key=lambda file: file.last)  # it is the second that is written to

    def after(self, turn: int) -> list[tuple[int, bytes]]:
        """Return number and bytes of all turns later than this one that were on disk. Raises LogDamaged."""
        later = [each for file in self._files for each in file.found if each[0] > turn]
        for before, (number, _) in enumerate(later, start=turn):
            if number != before + 1:
                raise LogDamaged(f"The queue's log does not go on from turn {before} but from {number - 1}.")
        for file in self._files:
            file.found.clear()
        return later

    def append(self, turn: int, content: bytes) -> None:
        """Return once the turn is on disk. Raises StoreFull, after which nothing has happened, StoreFailed."""
        file = self._files[1]
        if file.end and file.end + RECORD + len(content) > FILE_BYTES and self._other_is_free:
            self._begin_other()
        try:
            self._files[1].append(turn, content)
        except StoreFull:
            if not self._other_is_free:
                raise
            self._begin_other()
            self._files[1].append(turn, content)

    @property
    def _other_is_free(self) -> bool:
        return self._files[0].last <= self._secured

    def _begin_other(self) -> None:
        self._files[0].begin()
        self._files.reverse()

    @property
    def filling(self) -> bool:
        """Whether a file that is not free yet will be wanted soon, or takes more of the disk than it needs."""
        wanted = self._files[1].end >= FILE_BYTES // 2 and not self._other_is_free
        return wanted or any(file.is_long and file.last > self._secured for file in self._files)

    @property
    def crowded(self) -> bool:
        """Whether a file is more than full and the other not free, as it is where turns are faster than the store."""
        return self._files[1].end >= 2 * FILE_BYTES and not self._other_is_free

    def clear(self) -> None:
        """Leave nothing in the files; the store has all turns for good. Raises StoreFailed."""
        for file in self._files:
            file.clear()

    def secured(self, turn: int) -> None:
        """Hear that the store has all turns up to this one, whatever happens. Raises StoreFailed."""
        self._secured = turn
        for file in self._files:
            if file.is_long and file.last <= turn:
                file.begin()

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()

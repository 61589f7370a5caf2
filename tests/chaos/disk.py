"""A disk as a power cut sees it: what was written counts for everybody at once, and stays only once it was synced.

Pure, and nothing but the standard library: the file system of `mount.py` runs under Debian's own Python.
"""

import errno
import random

BLOCK = 4096
ROOM = 2**30


class File:
    """`content` is what a reader sees, `durable` what a power cut leaves; `dirty` are the blocks that differ."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.content = bytearray()
        self.durable = bytearray()
        self.dirty: set[int] = set()
        self.resized = False
        self.opened = 0

    def write(self, at: int, data: bytes) -> None:
        """Change the content; a gap reads as zeros."""
        if at > len(self.content):
            self.truncate(at)
        self.content[at : at + len(data)] = data
        self.dirty.update(range(at // BLOCK, (at + len(data) - 1) // BLOCK + 1))

    def truncate(self, size: int) -> None:
        """Make it shorter, or longer with zeros."""
        before = len(self.content)
        if size < before:
            del self.content[size:]
            self.dirty = {block for block in self.dirty if block * BLOCK < size}
            self.resized = True
        else:
            self.content.extend(bytes(size - before))
            self.dirty.update(range(before // BLOCK, -(-size // BLOCK)))

    def sync(self) -> None:
        """Let what was written outlast a cut."""
        if self.resized:
            del self.durable[len(self.content) :]
        for block in sorted(self.dirty):
            self._keep(block)
        self.forget()

    def forget(self) -> None:
        """Take what was written for synced, as Linux does after a failed fsync: it reads well and is nowhere."""
        self.dirty.clear()
        self.resized = False

    def _keep(self, block: int) -> None:
        start = block * BLOCK
        self.durable.extend(bytes(max(0, start - len(self.durable))))
        self.durable[start : start + BLOCK] = self.content[start : start + BLOCK]

    def cut(self, dice: random.Random | None) -> None:
        """Lose what was not synced; with `dice`, some of it had reached the disk, in any order."""
        if dice is not None:
            if self.resized and dice.random() < 0.5:
                del self.durable[len(self.content) :]
            for block in sorted(self.dirty):
                if dice.random() < 0.5:
                    self._keep(block)
        self.forget()
        self.content = bytearray(self.durable)


class Disk:
    """One directory of files, with the faults that a test asks for.

    `fault` is "" or one of: `write` and `sync` (EIO from those calls), `full` (ENOSPC where a file would grow).
    """

    def __init__(self, capacity: int = ROOM) -> None:
        self.capacity = capacity
        self.fault = ""
        self.files: dict[int, File] = {}
        self.names: dict[str, int] = {}
        self._durable_names: dict[str, int] = {}
        self._next = 2
        self.syncs = 0
        self.refused = 0
        """How many calls have met a fault."""

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        return 0 if self.fault == "full" else max(0, self.capacity - sum(len(f.content) for f in self.files.values()))

    @property
    def unsynced(self) -> int:
        """Blocks that a cut would lose."""
        return sum(len(file.dirty) for file in self.files.values())

    def _refuse(self, number: int) -> OSError:
        self.refused += 1
        return OSError(number, "a fault")

    def create(self, name: str, mode: int) -> int:
        """Make an empty file and return its number."""
        if self.fault == "full":
            raise self._refuse(errno.ENOSPC)
        number = self.names[name] = self._next
        self._next += 1
        self.files[number] = File(mode)
        return number

    def write(self, number: int, at: int, data: bytes) -> int:
        """Write; raise OSError where a fault says so or there is no room."""
        file = self.files[number]
        if self.fault == "write":
            raise self._refuse(errno.EIO)
        if at + len(data) > len(file.content) and self.free < at + len(data) - len(file.content):
            raise self._refuse(errno.ENOSPC)
        file.write(at, data)
        return len(data)

    def sync(self, number: int) -> None:
        """Make a file's content last; after an error what was written is never tried again."""
        if self.fault == "sync":
            self.files[number].forget()
            raise self._refuse(errno.EIO)
        self.files[number].sync()
        self.syncs += 1

    def sync_names(self) -> None:
        """Make the directory last."""
        if self.fault == "sync":
            raise self._refuse(errno.EIO)
        self._durable_names = dict(self.names)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of whatever had it."""
        self.names[new] = self.names.pop(old)
        self.tidy()

    def unlink(self, name: str) -> None:
        """Take a name away; the file stays while it is open, or on record."""
        del self.names[name]
        self.tidy()

    def tidy(self) -> None:
        """Forget the files that nothing refers to any more."""
        used = {*self.names.values(), *self._durable_names.values()}
        self.files = {number: file for number, file in self.files.items() if number in used or file.opened}

    def cut(self, seed: str = "") -> None:
        """Lose power: what was not synced is gone; with a seed, some of it is there."""
        dice = random.Random(seed) if seed else None
        for file in self.files.values():
            file.cut(dice)
        self.names = dict(self._durable_names)
        self.tidy()

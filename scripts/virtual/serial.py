"""A serial line of the virtual machine, as bytes that come and go."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator

from scripts.virtual.errors import MachineFailed

_KEPT_BYTES = 1 << 20


class SerialLine:
    """One serial line. It is read all the time, since a guest stands still when nobody takes what it prints."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._kept = bytearray()
        self._dropped = 0
        self._listeners: list[Callable[[bytes], None]] = []
        self._grown = asyncio.Condition()
        self.closed = False

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, channel: socket.socket) -> AsyncIterator["SerialLine"]:
        """The line on a connected socket; reading stops when the context ends."""
        reader, writer = await asyncio.open_connection(sock=channel)
        line = cls(reader, writer)
        task = asyncio.create_task(line._read())
        try:
            yield line
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            writer.close()

    async def _read(self) -> None:
        while data := await self._next():
            async with self._grown:
                self._kept += data
                surplus = len(self._kept) - _KEPT_BYTES
                if surplus > 0:
                    del self._kept[:surplus]
                    self._dropped += surplus
                self._grown.notify_all()
            for listener in self._listeners:
                listener(data)
        async with self._grown:
            self.closed = True
            self._grown.notify_all()

    async def _next(self) -> bytes:
        try:
            return await self._reader.read(65536)
        except ConnectionError:
            return b""

    @property
    def position(self) -> int:
        """How many bytes have come so far."""
        return self._dropped + len(self._kept)

    def since(self, position: int) -> bytes:
        """What came after `position`, as far as it is kept (1 MiB)."""
        return bytes(self._kept[max(0, position - self._dropped) :])

    @contextlib.contextmanager
    def listening(self, listener: Callable[[bytes], None]) -> Iterator[None]:
        """Call `listener` with everything that comes while the context lasts."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def write(self, data: bytes) -> None:
        """Send bytes to the guest."""
        self._writer.write(data)

    async def expect(self, pattern: bytes, deadline_s: float, *, since: int = 0) -> re.Match[bytes]:
        """Wait until `pattern` (a regular expression) has come after `since`; `MachineFailed` at the deadline."""
        compiled = re.compile(pattern)
        try:
            async with asyncio.timeout(deadline_s), self._grown:
                while True:
                    if found := compiled.search(self.since(since)):
                        return found
                    if self.closed:
                        raise MachineFailed(f"The machine ended before {pattern!r} came on its serial line.")
                    await self._grown.wait()
        except TimeoutError as error:
            tail = self.since(since)[-400:].decode(errors="replace")
            raise MachineFailed(
                f"{pattern!r} did not come within {deadline_s:.0f} s; the line ends with: {tail}"
            ) from error

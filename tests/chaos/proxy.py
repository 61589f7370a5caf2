"""The network between the actors and the broker, which the nemesis can cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal

Mode = Literal["pass", "cut", "hold", "one-way"]


class Proxy:
    """Passes TCP on to one target.

    `cut` closes every connection and lets none in; `hold` passes nothing on and keeps it for later; `one-way` swallows
    what the target says, so that requests arrive and answers do not, and closes the connections it spoiled at its end.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._mode: Mode = "pass"
        self._passing = asyncio.Event()
        self._passing.set()
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    async def set(self, mode: Mode) -> None:
        """Let the network be another one from now on."""
        spoiled = "cut" in (self._mode, mode) or self._mode == "one-way"
        self._mode = mode
        if mode == "hold":
            self._passing.clear()
        else:
            self._passing.set()
        if spoiled:
            await self._close_all()

    async def _close_all(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self._mode != "cut":
                await self._pass(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # this connection is over, whoever ended it
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            tasks = [
                asyncio.create_task(self._pump(reader, far_writer, answers=False)),
                asyncio.create_task(self._pump(far_reader, writer, answers=True)),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(65536):
            await self._passing.wait()
            if answers and self._mode == "one-way":
                continue
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def proxying(port: int) -> AsyncIterator[Proxy]:
    """A proxy on a port of its own in front of a port of loopback."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy._close_all()
        await server.wait_closed()

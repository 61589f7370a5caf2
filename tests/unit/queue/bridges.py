"""Clusters on loopback, each a broker and a bridge of its own, joined by links that a test can cut."""

import asyncio
import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from appliance.contracts.access import Access, Rights
from appliance.queue.settings import BridgeSettings, RouteSettings
from tests.unit.queue.running import STARTED_WITHIN_S, STOPPED_WITHIN_S, Broker

ANYTHING = Rights(
    publish=("*", "*/*/*"),
    consume=("*", "*/*/*"),
    emit=("*",),
    subscribe=("*",),
    call=("*",),
    serve=("*",),
    administer=("*", "*/*/*"),
)


class Side(Broker):
    """A cluster `lan/NAME`: its broker, and its bridge as a second process."""

    def __init__(self, directory: Path, name: str, **settings: object) -> None:
        directory.mkdir()
        super().__init__(directory, **settings)
        self.place = ("lan", name)
        self.to: list[RouteSettings] = []
        self.bridge: subprocess.Popen[bytes] | None = None
        self.grant("tester", ANYTHING)
        self.grant(
            "bridge", Rights(consume=("*/*/*",), serve=("bridge.*",), call=("queue.browse",), administer=("*/*/*",))
        )

    @property
    def name(self) -> str:
        """`lan/cluster`."""
        return "/".join(self.place)

    def route(self, other: "Side", endpoint: str = "", *, to: str = "", **more: object) -> None:
        """Send what is for `other` (or for `to`, by way of it) to its broker."""
        to = to or other.name
        endpoint = endpoint or other.endpoint
        document = {"to": to, "endpoint": endpoint, "server_key": other.keys.public} | more
        self.to.append(msgspec.convert(document, RouteSettings))
        self.routes = (*self.routes, to)
        self.write_access()

    def admit(self, other: "Side", *, publish: tuple[str, ...] = ("*", "*/*/*"), transit: bool = False) -> None:
        """Let the bridge of `other` in."""
        rights = Rights(publish=publish, relay=("*/*/*" if transit else f"{other.name}/*",))
        key = other.clients["bridge"][0].public
        self.others = (*self.others, Access(name=other.name, public_key=key, rights=rights))
        self.write_access()

    def start_bridge(self) -> None:
        """Start the bridge and return once it said READY=1."""
        settings = BridgeSettings(routes=tuple(self.to))
        self.bridge = self.launch("bridge", settings, self.directory / "bridge.log", keys=self.clients["bridge"][0])

    def kill_bridge(self) -> None:
        """Kill the bridge outright."""
        assert self.bridge is not None
        self.bridge.kill()
        self.bridge.wait(STOPPED_WITHIN_S)

    def stop_bridge(self) -> int:
        """Stop the bridge as systemd does and return its exit status."""
        assert self.bridge is not None
        self.bridge.terminate()
        return self.bridge.wait(STOPPED_WITHIN_S)

    def bridge_log(self) -> str:
        """What the bridge wrote so far."""
        return (self.directory / "bridge.log").read_text()


@contextlib.contextmanager
def clusters(*names: str, **settings: object) -> Iterator[list[Side]]:
    """Clusters that are not started yet; whatever runs at the end is ended."""
    with tempfile.TemporaryDirectory(prefix="arq") as directory:
        sides = [Side(Path(directory) / name, name, **settings) for name in names]
        try:
            yield sides
        finally:
            for side in sides:
                for process in (side.bridge, side.process):
                    if process is not None and process.poll() is None:
                        process.kill()
                        process.wait(STOPPED_WITHIN_S)


def start(sides: Sequence[Side]) -> None:
    """Start brokers and bridges."""
    for side in sides:
        side.start()
        if side.to:
            side.start_bridge()


class Wire:
    """A TCP line to `port` of loopback that can be cut (connections end) or frozen (nothing moves, nothing ends)."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = True
        self._flows: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._moving = asyncio.Event()
        self._moving.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(STARTED_WITHIN_S)
        self.endpoint = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=2**16)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**16)
        except OSError:
            writer.transport.abort()
            return
        ends = (writer, far_writer)
        self._flows.update(ends)
        tasks = [asyncio.create_task(self._pass_on(*way)) for way in ((reader, far_writer), (far_reader, writer))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.transport.abort()
        await asyncio.wait(tasks)
        self._flows.difference_update(ends)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**16):
                await self._moving.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            return  # cut

    def _in_loop(self, open_: bool, moving: bool) -> None:
        self._open = open_
        if moving:
            self._moving.set()
        else:
            self._moving.clear()
        if not open_:
            for writer in self._flows:
                writer.transport.abort()

    def cut(self) -> None:
        """End all connections and take no new one."""
        self._loop.call_soon_threadsafe(self._in_loop, False, True)

    def freeze(self) -> None:
        """Let nothing through, and say nothing of it."""
        self._loop.call_soon_threadsafe(self._in_loop, True, False)

    def mend(self) -> None:
        """Let everything through."""
        self._loop.call_soon_threadsafe(self._in_loop, True, True)

    def close(self) -> None:
        """End it."""
        self.cut()
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(STOPPED_WITHIN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOPPED_WITHIN_S)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

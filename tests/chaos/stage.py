"""The stage of a run: a cluster on a disk that fails, behind a network that fails, with a clock that jumps."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from appliance.contracts import letters
from appliance.contracts.traffic import QueueStats
from appliance.errors import ApplianceError, Unavailable
from appliance.queue.sqlite_store import SqliteStore
from appliance.queue.store import Brief, State
from tests.chaos.actors import Orders
from tests.chaos.history import ClockMoved, Fault, Purge, Recorder, now
from tests.chaos.layer import REPOSITORY, Layer
from tests.chaos.proxy import Proxy
from tests.unit.queue.bridges import ANYTHING, Side

LEASE_S = 1.0
FAKETIME = "/usr/$LIB/faketime/libfaketimeMT.so.1"
"""Debian's libfaketime; the dynamic linker knows what $LIB is."""
ENDED_WITHIN_S = 30.0
AT_REST_WITHIN_S = 120.0
PAGE = 1000


class Unexpected(AssertionError):
    """Something ended, or did not end, that the nemesis had no hand in."""


class Actor:
    """A producer or consumer, started again as often as it is killed."""

    def __init__(self, stage: "Stage", role: Literal["producer", "consumer"], name: str, rate: float) -> None:
        self._stage = stage
        self._role = role
        self.name = name
        self._rate = rate
        self._life = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        stage.broker.grant(name, ANYTHING)

    def _start(self) -> subprocess.Popen[bytes]:
        stage = self._stage
        self._life += 1
        orders = Orders(
            role=self._role, name=self.name, life=self._life, seed=stage.seed, rate=self._rate,
            endpoint=f"tcp://127.0.0.1:{stage.proxy.port}", server_key=stage.broker.keys.public,
            keys=stage.broker.clients[self.name][0], history=str(stage.directory), lease_s=LEASE_S,
            place=stage.broker.place, other=next(iter(stage.broker.routes), ""),
        )  # fmt: skip
        path = stage.broker.directory / f"{self.name}.json"
        path.write_bytes(msgspec.json.encode(orders))
        with (stage.directory / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.actors", str(path)], cwd=REPOSITORY, stderr=log
            )  # fmt: skip

    async def live(self) -> None:
        """Return once stopped; raise Unexpected when it ends by itself."""
        while not self._stopping:
            process = self._process = self._start()
            try:
                status = await asyncio.to_thread(process.wait)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if status not in (-signal.SIGKILL, 0 if self._stopping else -signal.SIGKILL):
                raise Unexpected(f"{self.name} ended with {status}; see {self.name}.log")

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    async def stop(self) -> None:
        """Let it finish what it does."""
        self._stopping = True
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        assert self._process is not None
        try:
            await asyncio.to_thread(self._process.wait, ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise Unexpected(f"{self.name} does not stop") from None


class Stage:
    """Everything that the nemesis can lay hands on. `directory` keeps what is left of a run."""

    def __init__(
        self, broker: Side, layer: Layer, proxy: Proxy, *, directory: Path, seed: str, module: tuple[str, ...] = ()
    ) -> None:
        self.broker = broker
        self.layer = layer
        self.proxy = proxy
        self.directory = directory
        self.seed = seed
        self._module = module
        self._recorder = Recorder(directory, f"{broker.place[1]}-nemesis")
        self.producers: list[Actor] = []
        self.consumers: list[Actor] = []
        self._clock = broker.directory / "faketime"
        self._clock.write_text("+0\n")

    def note(self, what: str) -> None:
        """Put a deed of the nemesis on record."""
        at, wall = now()
        self._recorder.write(Fault(by=self._recorder.name, at=at, wall=wall, what=what))

    async def start(self) -> None:
        """Start the broker and return once it serves."""
        environment = {
            "LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(self._clock), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DISABLE_SHM": "1", "NO_FAKE_STAT": "1",
        }  # fmt: skip
        faked = ("/usr/bin/env", *(f"{name}={value}" for name, value in environment.items()))
        await asyncio.to_thread(self.broker.start, python=(*faked, sys.executable, *self._module))

    async def kill(self, cut: str | None = None) -> None:
        """Kill the broker outright; with `cut`, the power goes with it (see Layer.cut)."""
        await asyncio.to_thread(self.broker.kill)
        if cut is not None:
            self.note(f"the power cut loses {self.layer.count('unsynced')} blocks")
            self.layer.cut(cut)

    async def ended(self) -> int:
        """Wait until the broker has ended by itself and return its status."""
        assert self.broker.process is not None
        try:
            return await asyncio.to_thread(self.broker.process.wait, ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise Unexpected("the broker goes on although its disk fails") from None

    def alive(self) -> None:
        """Raise Unexpected when the broker has ended."""
        assert self.broker.process is not None
        if (status := self.broker.process.poll()) is not None:
            raise Unexpected(f"the broker ended by itself with {status}:\n{self.broker.log()[-4000:]}")
        bridge = self.broker.bridge
        if bridge is not None and bridge.poll() is not None:
            raise Unexpected(f"the bridge ended by itself:\n{self.broker.bridge_log()[-4000:]}")

    def set_clock(self, offset_s: float) -> None:
        """Move the broker's wall clock this far from the machine's."""
        at, wall = now()
        self._recorder.write(ClockMoved(by=self._recorder.name, at=at, wall=wall, offset_s=offset_s))
        candidate = self._clock.with_suffix(".new")
        candidate.write_text(f"{offset_s:+g}\n")
        candidate.rename(self._clock)

    async def at_rest(self) -> None:
        """Return once nothing waits and nothing is leased; the consumers are still at work."""
        end = time.monotonic() + AT_REST_WITHIN_S
        open_work = "nothing is known"
        async with self.broker.client() as client:
            while time.monotonic() < end:
                self.alive()
                try:
                    stats = await client.call("queue.stats", None, QueueStats)
                except ApplianceError:
                    continue  # not connected yet
                if not any(depth.ready or depth.leased for depth in stats.depths):
                    return
                open_work = str([depth for depth in stats.depths if depth.ready or depth.leased])
                await asyncio.sleep(0.2)
        raise Unexpected(f"the queue does not come to rest: {open_work}")

    async def purge(self, state: Literal["dead", "ready"]) -> None:
        """Drop some of what is in that state, as an operator does; whether it was done is not asked."""
        at, wall = now()
        self._recorder.write(Purge(by=self._recorder.name, at=at, wall=wall))
        choice = letters.Purge(address="work.*", state=state, limit=10)
        async with self.broker.client() as client:
            with contextlib.suppress(Unavailable):
                await client.call("queue.purge", choice, letters.Changed)

    def stored(self) -> list[Brief]:
        """Return all that the store holds; the broker is down."""
        store = SqliteStore(self.broker.directory / "state" / "queue.sqlite")
        try:
            return [brief for state in State for pattern in ("*", "*/*/*") for brief in _all(store, pattern, state)]
        finally:
            store.close()

    def keep(self) -> None:
        """Copy what is left of the broker to where the history is."""
        kept = [*self.broker.directory.glob("*log"), *(self.broker.directory / "state").glob("queue.sqlite*")]
        for path in kept:
            (self.directory / f"{self.broker.place[1]}-{path.name}").write_bytes(path.read_bytes())

    def close(self) -> None:
        """Leave no process behind."""
        for process in (self.broker.bridge, self.broker.process):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def _all(store: SqliteStore, pattern: str, state: State) -> Iterator[Brief]:
    last = 0
    while page := store.browse(pattern, state, last, PAGE):
        yield from page
        last = page[-1].seq

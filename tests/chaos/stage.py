"""The stage of a run: a cluster on a disk that fails, behind a network that fails, with a clock that jumps."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from appliance.contracts import letters
from appliance.contracts.access import Rights
from appliance.contracts.traffic import Messages, QueueStats
from appliance.errors import ApplianceError
from appliance.queue.keys import generate_keys
from appliance.queue.store import Brief
from tests.chaos.actors import Habits, Orders
from tests.chaos.backup import inspected, restored
from tests.chaos.history import Act, ClockMoved, Fault, Operate, Operated, Recorder, now
from tests.chaos.layer import OWN, REPOSITORY, Layer
from tests.chaos.proxy import Proxy
from tests.unit.queue.bridges import ANYTHING, Side
from tests.unit.queue.gates import Gate

LEASE_S = 1.0
FAKETIME = "/usr/$LIB/faketime/libfaketimeMT.so.1"
"""Debian's libfaketime; the dynamic linker knows what $LIB is."""
ENDED_WITHIN_S = 30.0
AT_REST_WITHIN_S = 120.0
AT_WORK_WITHIN_S = 60.0
ANSWERED_WITHIN_S = 30.0
UNAVAILABLE = 503
OPERATED_AT_ONCE = 10


class Unexpected(AssertionError):
    """Something ended, or did not end, that the nemesis had no hand in."""


class Actor:
    """A producer or consumer, started again as often as it is killed; one from `outside` comes in by the gate."""

    def __init__(
        self, stage: "Stage", role: Literal["producer", "consumer"], name: str, rate: float, *, outside: bool = False
    ) -> None:
        self._stage = stage
        self._role = role
        self.name = name
        self._rate = rate
        self._life = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._outside = outside
        stage.broker.grant(name, Rights(publish=("work.*",)) if outside else ANYTHING, outside=outside)

    def _start(self) -> subprocess.Popen[bytes]:
        stage, broker = self._stage, self._stage.broker
        self._life += 1
        orders = Orders(
            role=self._role, name=self.name, life=self._life, seed=stage.seed, rate=self._rate,
            endpoint=stage.gate.endpoint if self._outside else f"tcp://127.0.0.1:{stage.proxy.port}",
            server_key=broker.keys.public, next_key=broker.next_keys.public, keys=broker.clients[self.name][0],
            history=str(stage.directory), lease_s=LEASE_S, place=broker.place,
            other="" if self._outside else next(iter(broker.routes), ""), habits=stage.habits,
        )  # fmt: skip
        path = stage.broker.directory / f"{self.name}.json"
        path.write_bytes(msgspec.json.encode(orders))
        with (stage.directory / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                [*OWN, sys.executable, "-m", "tests.chaos.actors", str(path)], cwd=REPOSITORY, stderr=log
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
            # Before it has begun it may be stopped by the signal itself.
            expected = {-signal.SIGKILL, 0, -signal.SIGTERM} if self._stopping else {-signal.SIGKILL}
            if status not in expected:
                raise Unexpected(f"{self.name} ended with {status}; see {self.name}.log")

    @property
    def progress(self) -> int:
        """How many acknowledgements, or deliveries, it has had."""
        mark = b'"stored"' if self._role == "producer" else b'"Delivered"'
        path = self._stage.directory / f"{self.name}.jsonl"
        return path.read_bytes().count(mark) if path.exists() else 0

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
        self, broker: Side, layer: Layer, proxy: Proxy, *, directory: Path, seed: str,
        habits: Habits, module: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.broker = broker
        self.layer = layer
        self.proxy = proxy
        self.gate = Gate(broker)
        self.directory = directory
        self.seed = seed
        self.habits = habits
        self._module = module
        self._recorder = Recorder(directory, f"{broker.place[1]}-nemesis")
        self._backups = 0
        self.producers: list[Actor] = []
        self.consumers: list[Actor] = []
        self.others: list[Side] = []
        """The clusters that have a route to this one."""
        self._clock = broker.directory / "faketime"
        self._clock.write_text("+0\n")
        broker.python = (*OWN, sys.executable)

    def note(self, what: str, count: int = 1) -> None:
        """Put on record what the nemesis does, or what is seen of it."""
        at, wall = now()
        self._recorder.write(Fault(by=self._recorder.name, at=at, wall=wall, what=what, count=count))

    async def start(self) -> None:
        """Start the broker and return once it serves."""
        environment = {
            "LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(self._clock), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DISABLE_SHM": "1", "NO_FAKE_STAT": "1",
        }  # fmt: skip
        faked = (*OWN, "/usr/bin/env", *(f"{name}={value}" for name, value in environment.items()))
        await asyncio.to_thread(self.broker.start, python=(*faked, sys.executable, *self._module))

    async def at_work(self) -> None:
        """Return once every actor gets on from here."""
        actors = (*self.producers, *self.consumers)
        marks = {actor: actor.progress for actor in actors}
        end = time.monotonic() + AT_WORK_WITHIN_S
        while idle := [actor.name for actor in actors if actor.progress == marks[actor]]:
            self.alive()
            if time.monotonic() > end:
                raise Unexpected(f"these do not get on, with everything in order: {', '.join(idle)}")
            await asyncio.sleep(0.05)

    async def kill(self, cut: str | None = None) -> None:
        """Kill the broker outright; with `cut`, the power goes with it (see Layer.cut)."""
        await asyncio.to_thread(self.broker.kill)
        if cut is not None:
            self.note("blocks lost", self.layer.count("unsynced"))
            self.layer.cut(cut)

    async def stop(self) -> None:
        """Stop the broker as systemd does."""
        status = await asyncio.to_thread(self.broker.stop)
        if status != 0:
            raise Unexpected(f"the broker was stopped and ended with {status}")

    async def keep_gate(self) -> None:
        """Start the gate again as often as it ends, which it does with its broker and when it is killed."""
        while True:
            await asyncio.to_thread(self.gate.start)
            assert self.gate.process is not None
            status = await asyncio.to_thread(self.gate.process.wait)
            if status not in (0, -signal.SIGKILL):
                raise Unexpected(f"the gate ended with {status}:\n{self.gate.log()[-4000:]}")

    def rotate_keys(self) -> None:
        """Let the broker's next start have the key that it has announced; the routes that lead here are told."""
        broker = self.broker
        broker.keys, broker.next_keys = broker.next_keys, generate_keys()
        for other in self.others:
            other.to = [
                msgspec.structs.replace(route, server_key=broker.keys.public, next_key=broker.next_keys.public)
                if route.to == broker.name else route
                for route in other.to
            ]  # fmt: skip

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

    async def operate(self, act: Act, state: Literal["dead", "ready"], seed: str) -> None:
        """Do something to some of what is in that state, as an operator does; what fails is not done."""
        async with self.broker.client() as client:
            try:
                everything = letters.Browse(address="work.*", state=state, limit=1000)
                found = [message.seq for message in (await client.call("queue.browse", everything, Messages)).messages]
                chosen = tuple(random.Random(seed).sample(found, min(OPERATED_AT_ONCE, len(found))))
                if not chosen:
                    return
                at, wall = now()
                self._recorder.write(Operate(by=self._recorder.name, at=at, wall=wall, act=act, seqs=chosen))
                choice: letters.Choice = letters.Requeue(seqs=chosen)
                if act == "purge":
                    choice = letters.Purge(seqs=chosen, state=state)
                changed = await client.call(f"queue.{act}", choice, letters.Changed)
                if changed.count == len(chosen):
                    at, wall = now()
                    self._recorder.write(Operated(by=self._recorder.name, at=at, wall=wall, act=act, seqs=chosen))
            except ApplianceError as error:
                if error.problem.status != UNAVAILABLE:
                    raise

    async def back_up(self) -> None:
        """Let the broker make a backup, restore it beside the queue, and keep what came of it for the checker."""
        end = time.monotonic() + ANSWERED_WITHIN_S
        async with self.broker.client() as client:
            while True:
                began = time.monotonic()
                try:
                    made = await client.call("queue.backup", None, letters.BackedUp, deadline_s=ANSWERED_WITHIN_S)
                    break
                except ApplianceError as error:
                    if error.problem.status != UNAVAILABLE or began > end:
                        raise Unexpected(f"no backup is made: {error}") from error
                    await asyncio.sleep(0.2)
        backup = await asyncio.to_thread(restored, Path(made.path), began, time.monotonic())
        self._backups += 1
        path = self.directory / f"{self.broker.place[1]}-{self._backups}.backup"
        path.write_bytes(msgspec.msgpack.encode(backup))

    def stored(self) -> tuple[Sequence[str], list[Brief]]:
        """Return what is wrong with the store, and all that it holds; the broker is down."""
        return inspected(self.broker.directory / "state" / "queue.sqlite")

    def keep(self) -> None:
        """Copy what is left of the broker to where the history is."""
        kept = [*self.broker.directory.glob("*log"), *(self.broker.directory / "state").glob("queue.sqlite*")]
        for path in kept:
            (self.directory / f"{self.broker.place[1]}-{path.name}").write_bytes(path.read_bytes())

    def close(self) -> None:
        """Leave no process behind."""
        for process in (self.gate.process, self.broker.bridge, self.broker.process):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

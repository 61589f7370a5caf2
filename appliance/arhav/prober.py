"""Probes every member of the cluster by its application-level ping and publishes the order."""

import asyncio
import logging
import time
from collections.abc import Callable

from appliance.arhav.tracker import Announcer, Rules, Tracker, order_of
from appliance.contracts.member import Members, Ping, Pong
from appliance.contracts.order import Order
from appliance.errors import ApplianceError, InvalidInput, Unavailable
from appliance.queue.client import QueueClient

log = logging.getLogger(__name__)

INTERVAL_S = 0.25
DEADLINE_S = 0.75
AT_ONCE = 32
"""Probes under way at a time, however many members there are."""


class Prober:
    """Follows the event `members`, probes each of them all the time, emits `order`.

    `on_change` is called when a server went up or down.
    """

    def __init__(self, queue: QueueClient, on_change: Callable[[], None], rules: Rules | None = None) -> None:
        self._queue = queue
        self._on_change = on_change
        self._rules = rules or Rules()
        self._trackers: dict[str, Tracker] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Probe and publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._announce())
            async for event in self._queue.events("members"):
                try:
                    members = event.decode(Members)
                except InvalidInput as error:
                    log.error("the members as published cannot be read, those known stay: %s", error)
                    continue
                self._follow({member.name for member in members.members}, group)

    def _follow(self, names: set[str], group: asyncio.TaskGroup) -> None:
        for gone in self._probes.keys() - names:
            self._probes.pop(gone).cancel()
            del self._trackers[gone]
        for new in names - self._probes.keys():
            self._trackers[new] = Tracker(new, self._rules)
            self._probes[new] = group.create_task(self._probe(self._trackers[new]), name=f"probe {new}")
        self._moved.set()

    async def _probe(self, tracker: Tracker) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            async with self._slots:
                started = clock()
                was = tracker.presence
                await self._ping(tracker)
            if tracker.presence != was:
                log.info("%s is %s", tracker.name, tracker.presence)
                self._moved.set()
                self._on_change()
            await asyncio.sleep(max(0.0, started + INTERVAL_S - clock()))

    async def _ping(self, tracker: Tracker) -> None:
        # Without the queue nobody can be heard, which says nothing about the servers.
        await self._queue.wait_connected(float("inf"))
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            ping = Ping(sent_at=time.time())
            pong = await self._queue.call(f"{tracker.name}.ping", ping, Pong, deadline_s=DEADLINE_S)
        except ApplianceError as error:
            if self._queue.connected:
                tracker.missed(clock(), clock() - started)
                log.debug("%s did not answer: %s", tracker.name, error)
        else:
            tracker.answered(clock(), clock() - started, pong.pending)

    async def _announce(self) -> None:
        announcer = Announcer()
        clock = asyncio.get_running_loop().time
        while True:
            ranks = order_of(list(self._trackers.values()))
            if announcer.is_due(clock(), ranks):
                try:
                    await self._queue.emit("order", Order(at=time.time(), ranks=ranks))
                except Unavailable as error:
                    log.warning("the order cannot be published yet: %s", error)
            try:
                await asyncio.wait_for(self._moved.wait(), INTERVAL_S)
            except TimeoutError:
                continue
            self._moved.clear()

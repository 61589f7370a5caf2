"""The picture of the cluster that the console shows: kept up to date by events and by asking the queue."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from appliance.arwadm.routes import ask_backlogs
from appliance.contracts.bridge import Backlog
from appliance.contracts.machine import MachineStatus
from appliance.contracts.order import Health, Order
from appliance.contracts.traffic import Depth, Message, Messages, QueueStats, RecentQuery
from appliance.errors import ApplianceError
from appliance.queue.client import QueueClient

T = TypeVar("T")

ASK_EVERY_S = 1.0
ASK_IDLE_EVERY_S = 10.0
STALE_AFTER_S = 15.0
SHOWN_MESSAGES = 30


class FlowTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """One flow: messages waiting or in hand at any stage, delivered since the store was made, and dead."""

    name: str
    waiting: int = 0
    in_hand: int = 0
    delivered: int = 0
    dead: int = 0


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the console shows; a part that was never heard of is None, `stale` names those that went silent.

    `busy` is whether the queue takes no new message, wherever it is for.
    """

    at: float
    queue_connected: bool
    machine: MachineStatus | None = None
    order: Order | None = None
    health: Health | None = None
    flows: tuple[FlowTraffic, ...] = ()
    depths: tuple[Depth, ...] = ()
    recent: tuple[Message, ...] = ()
    routes: tuple[Backlog, ...] = ()
    busy: bool = False
    stale: tuple[str, ...] = ()


def is_own(address: str) -> bool:
    """Whether an address belongs to one of the appliance's own flows, which a person does not want to see."""
    return address.startswith("flow._")


def flow_traffic(depths: tuple[Depth, ...]) -> tuple[FlowTraffic, ...]:
    """Return the traffic of each flow from the depths of its stages; the highest stage seen is the delivery."""
    stages: dict[str, dict[int, Depth]] = {}
    for depth in depths:
        kind, _, rest = depth.address.partition(".")
        flow, _, stage = rest.rpartition(".")
        if kind == "flow" and flow and stage.isdigit() and not flow.startswith("_"):
            stages.setdefault(flow, {})[int(stage)] = depth
    return tuple(
        FlowTraffic(
            name=flow,
            waiting=sum(depth.ready for depth in of.values()),
            in_hand=sum(depth.leased for depth in of.values()),
            delivered=of[max(of)].done_total,
            dead=sum(depth.dead for depth in of.values()),
        )
        for flow, of in sorted(stages.items())
    )


class Watcher:
    """Keeps the newest Picture and wakes whoever shows it when it has changed."""

    def __init__(self, queue: QueueClient) -> None:
        self._queue = queue
        self._machine: MachineStatus | None = None
        self._order: Order | None = None
        self._health: Health | None = None
        self._stats: QueueStats | None = None
        self._recent: tuple[Message, ...] = ()
        self._routes: tuple[Backlog, ...] = ()
        self._version = 0
        self._changed = asyncio.Condition()
        self._wanted = asyncio.Event()
        self._viewers = 0

    @property
    def machine(self) -> MachineStatus | None:
        """What the supervisor said last."""
        return self._machine

    @property
    def picture(self) -> Picture:
        """The picture as it is now."""
        now = time.time()
        heard = {"machine": self._machine, "order": self._order, "health": self._health, "queue": self._stats}
        return Picture(
            at=now,
            queue_connected=self._queue.connected,
            machine=self._machine,
            order=self._order,
            health=self._health,
            flows=flow_traffic(self._stats.depths) if self._stats else (),
            depths=tuple(depth for depth in self._stats.depths if not is_own(depth.address)) if self._stats else (),
            recent=self._recent,
            routes=self._routes,
            busy=self._stats is not None and self._stats.busy,
            stale=tuple(name for name, part in heard.items() if part is None or now - part.at > STALE_AFTER_S),
        )

    async def pictures(self) -> AsyncIterator[Picture]:
        """Yield the picture now, at each change, and at least every ten seconds."""
        self._viewers += 1
        self._wanted.set()
        try:
            while True:
                seen = self._version
                yield self.picture
                async with self._changed:
                    try:
                        async with asyncio.timeout(ASK_IDLE_EVERY_S):
                            await self._changed.wait_for(lambda seen=seen: self._version != seen)  # type: ignore[misc]  # mypy cannot infer a lambda's default
                    except TimeoutError:
                        continue
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._wanted.clear()

    async def follow(self) -> None:
        """Follow the events and ask the queue, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_machine(), name="machine")
            tasks.create_task(self._follow_order(), name="order")
            tasks.create_task(self._follow_health(), name="health")
            tasks.create_task(self._ask_queue(), name="queue")

    async def _follow_machine(self) -> None:
        async for event in self._queue.events("machine"):
            self._machine = event.decode(MachineStatus)
            await self._announce()

    async def _follow_order(self) -> None:
        async for event in self._queue.events("order"):
            self._order = event.decode(Order)
            await self._announce()

    async def _follow_health(self) -> None:
        async for event in self._queue.events("health"):
            self._health = event.decode(Health)
            await self._announce()

    async def _ask_queue(self) -> None:
        """Ask once a second while somebody looks, every ten seconds while nobody does."""
        while True:
            try:
                self._stats = await self._queue.call("queue.stats", None, QueueStats)
                query = RecentQuery(limit=SHOWN_MESSAGES, only="flow.*", without="flow._*")
                recent = await self._queue.call("queue.recent", query, Messages)
                self._recent = recent.messages
                self._routes = await ask_backlogs(self._queue, self._stats)
            except ApplianceError:
                # The picture says that the queue is away (`queue_connected`, `stale`); the client reconnects by itself.
                pass
            await self._announce()
            await asyncio.sleep(ASK_EVERY_S)
            try:
                async with asyncio.timeout(ASK_IDLE_EVERY_S):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def _announce(self) -> None:
        async with self._changed:
            self._version += 1
            self._changed.notify_all()


@asynccontextmanager
async def watching(queue: QueueClient) -> AsyncIterator[Watcher]:
    """A Watcher that follows the cluster for as long as the context lasts."""
    watcher = Watcher(queue)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(watcher.follow(), name="picture")
        try:
            yield watcher
        finally:
            following.cancel()

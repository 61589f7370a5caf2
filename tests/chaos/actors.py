"""Producers and consumers, each a process of its own: `python3 -m tests.chaos.actors ORDERS.json`."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
import zlib
from collections import deque
from pathlib import Path
from typing import Literal

import msgspec

from appliance.queue.client import (
    Connection,
    Delivery,
    LeaseLost,
    PublishUnknown,
    QueueBusy,
    QueueClient,
    SettleUnknown,
)
from appliance.queue.keys import Keys
from tests.chaos.history import (
    Answer,
    Delivered,
    Outcome,
    Publish,
    Published,
    Recorder,
    Settle,
    Settled,
    Settlement,
    now,
)

LANES = 4
"""Things that a producer does at a time; within a lane each message is acknowledged before the next."""
REMEMBERED = 300
ANSWERED_WITHIN_S = 2.0
MOVED = ".moved-"


class Habits(msgspec.Struct, frozen=True):
    """What producers publish: the share `again` of it is known already, and of the rest the share `keyed` has a key."""

    again: float = 0.1
    keyed: float = 0.3


class Orders(msgspec.Struct, frozen=True):
    """Who the actor is; `life` counts how often it was started, and keeps the ids of its lives apart.

    `place` is its cluster, `other` the one to which it sends as well, if there is one.
    """

    role: Literal["producer", "consumer"]
    name: str
    life: int
    seed: str
    rate: float
    endpoint: str
    server_key: str
    next_key: str
    keys: Keys
    history: str
    lease_s: float
    place: tuple[str, str]
    other: str
    habits: Habits

    @property
    def connection(self) -> Connection:
        """How to reach the broker."""
        return Connection(self.endpoint, self.server_key, self.keys, *self.place, self.next_key)


def body_of(message: str) -> bytes:
    """Return the body that belongs to an id: of any size up to 8 KB."""
    return f"{message}|".encode() * (1 + zlib.crc32(message.encode()) % 500 // (1 + len(message) // 16))


class Producer:
    """Publishes until it is told to stop, each message until it is acknowledged, and some once more."""

    def __init__(self, orders: Orders, recorder: Recorder, client: QueueClient) -> None:
        self._orders = orders
        self._recorder = recorder
        self._client = client
        self._known: deque[Publish] = deque(maxlen=REMEMBERED)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work in all lanes until stopped."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        async with asyncio.TaskGroup() as group:
            for lane in range(LANES):
                group.create_task(self._lane(lane))

    async def _lane(self, lane: int) -> None:
        o = self._orders
        dice = random.Random(f"{o.seed}/{o.name}/{o.life}/{lane}")
        counter = 0
        while not await self._pause(dice.expovariate(o.rate / LANES)):
            if self._known and dice.random() < o.habits.again:
                await self._attempt(dice.choice(self._known))
                continue
            counter += 1
            wish = self._wish(dice, lane, f"{o.name}-{o.life}-{lane}-{counter}")
            while not await self._attempt(wish):
                if await self._pause(0.05):
                    return
            self._known.append(wish)

    async def _pause(self, seconds: float) -> bool:
        """Return whether it is time to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    def _wish(self, dice: random.Random, lane: int, name: str) -> Publish:
        at, wall = now()
        kind = dice.random()
        # What is timed by a broker's wall clock stays at that broker.
        far = kind < 0.4 and self._orders.other and dice.random() < 0.6
        address = f"{self._orders.other}/work" if far else "work"
        return Publish(
            by=self._orders.name, at=at, wall=wall, id=name, address=f"{address}.{dice.randrange(3)}",
            key=f"{lane}" if kind < self._orders.habits.keyed else None,
            delay_s=dice.uniform(0.1, 2.5) if 0.25 < kind < 0.4 else 0.0,
            not_before=wall + dice.uniform(0.2, 3.0) if 0.4 < kind < 0.47 else None,
            expires_s=dice.uniform(0.3, 3.0) if 0.47 < kind < 0.54 else None,
            max_attempts=dice.choice((1, 2, 3, 5, 8)),
        )  # fmt: skip

    async def _attempt(self, wish: Publish) -> bool:
        """Publish once; return whether the broker has it."""
        at, wall = now()
        self._recorder.write(msgspec.structs.replace(wish, at=at, wall=wall))
        answer: Answer
        try:
            published = await self._client.publish(
                wish.address, body_of(wish.id), id=wish.id, deadline_s=ANSWERED_WITHIN_S, delay_s=wish.delay_s,
                not_before=wish.not_before, expires_s=wish.expires_s, max_attempts=wish.max_attempts, key=wish.key,
            )  # fmt: skip
            answer = "duplicate" if published.duplicate else "stored"
        except PublishUnknown:
            answer = "unknown"
        except QueueBusy:
            answer = "busy"
        ended, wall = now()
        self._recorder.write(
            Published(by=self._orders.name, at=ended, wall=wall, id=wish.id, answer=answer, began=at)
        )  # fmt: skip
        return answer in ("stored", "duplicate")


class Consumer:
    """Ends what it is given in every way there is, not always in time, and sometimes not at all."""

    def __init__(self, orders: Orders, recorder: Recorder, client: QueueClient) -> None:
        self._orders = orders
        self._recorder = recorder
        self._client = client
        self._dice = random.Random(f"{orders.seed}/{orders.name}/{orders.life}")

    async def run(self) -> None:
        """Consume everything until stopped."""
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as group:
                async for delivery in self._client.consume("*", credit=8):
                    group.create_task(self._work(delivery))

    async def _work(self, delivery: Delivery) -> None:
        seq, fence = delivery.token
        at, wall = now()
        self._recorder.write(
            Delivered(
                by=self._orders.name, at=at, wall=wall, seq=seq, fence=fence, id=delivery.id, origin=delivery.origin,
                address=delivery.address, attempt=delivery.attempt,
                whole=delivery.origin == "queue" or delivery.body == body_of(delivery.id),
            )
        )  # fmt: skip
        fate = self._dice.random()
        if fate < 0.004:
            os.kill(os.getpid(), signal.SIGKILL)
        elif fate < 0.012:
            time.sleep(1.5 * self._orders.lease_s)  # noqa: ASYNC251  # a consumer that hangs renews nothing
        elif fate < 0.2:
            await asyncio.sleep(self._dice.uniform(0.0, 0.3))
        if fate < 0.8 or (fate < 0.87 and not _may_move(delivery)):
            await self._end(delivery, "done", 0.0)
        elif fate < 0.87:
            await self._move(delivery)
        elif fate < 0.96:
            await self._end(delivery, "retry", self._dice.choice((0.0, self._dice.uniform(0.1, 1.0))))
        else:
            await self._end(delivery, "reject", 0.0)

    async def _end(self, delivery: Delivery, outcome: Outcome, delay_s: float) -> None:
        seq, fence = delivery.token
        began, wall = now()
        self._recorder.write(
            Settle(by=self._orders.name, at=began, wall=wall, seq=seq, fence=fence, outcome=outcome, delay_s=delay_s)
        )
        answer: Settlement = "ok"
        try:
            if outcome == "done":
                await delivery.done(deadline_s=ANSWERED_WITHIN_S)
            elif outcome == "retry":
                await delivery.retry(delay_s, "once more", deadline_s=ANSWERED_WITHIN_S)
            else:
                await delivery.reject("not wanted", deadline_s=ANSWERED_WITHIN_S)
        except LeaseLost:
            answer = "stale"
        except SettleUnknown:
            answer = "unknown"
        at, wall = now()
        self._recorder.write(
            Settled(
                by=self._orders.name, at=at, wall=wall, seq=seq, fence=fence, outcome=outcome, answer=answer,
                began=began, delay_s=delay_s,
            )
        )  # fmt: skip


    async def _move(self, delivery: Delivery) -> None:
        """Pass it on to another address, here in the name of its publisher, in the other cluster in one's own."""
        o, (seq, fence) = self._orders, delivery.token
        far = bool(o.other) and self._dice.random() < 0.3
        address = f"{o.other}/work.{self._dice.randrange(3)}" if far else f"work.{self._dice.randrange(3)}"
        began, wall = now()
        wish = Publish(
            by=o.name, at=began, wall=wall, id=f"{delivery.id}{MOVED}{fence}", address=address,
            origin="" if far else delivery.origin, key="moved" if far else None,
        )  # fmt: skip
        settle = Settle(by=o.name, at=began, wall=wall, seq=seq, fence=fence, outcome="move", moved=wish.name)
        self._recorder.write(wish)
        self._recorder.write(settle)
        answer: Settlement = "ok"
        try:
            published = await self._client.move(
                delivery, address, body_of(wish.id), id=wish.id, max_attempts=wish.max_attempts, key=wish.key,
                deadline_s=ANSWERED_WITHIN_S,
            )  # fmt: skip
        except LeaseLost:
            answer = "stale"
        except SettleUnknown:
            answer = "unknown"
        except QueueBusy:
            answer = "busy"
        at, wall = now()
        if answer == "ok":
            stored: Answer = "duplicate" if published.duplicate else "stored"
            self._recorder.write(
                Published(by=o.name, at=at, wall=wall, id=wish.id, answer=stored, began=began, origin=wish.origin)
            )  # fmt: skip
        self._recorder.write(
            Settled(by=o.name, at=at, wall=wall, seq=seq, fence=fence, outcome="move", answer=answer, began=began)
        )  # fmt: skip
        if answer == "busy":
            await self._end(delivery, "retry", 0.5)


def _may_move(delivery: Delivery) -> bool:
    return delivery.origin != "queue" and MOVED not in delivery.id


async def main(orders: Orders) -> None:
    """Play the part until SIGTERM."""
    recorder = Recorder(Path(orders.history), orders.name)
    async with QueueClient(orders.connection) as client:
        await (Producer if orders.role == "producer" else Consumer)(orders, recorder, client).run()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Orders)))

"""The bridge between clusters: everything arrives once and in order, whatever breaks on the way."""

import asyncio
import contextlib
import random
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable

import pytest

from appliance.contracts.access import Rights
from appliance.contracts.bridge import RoutesStatus, RouteStatus
from appliance.contracts.traffic import Depth, QueueStats
from appliance.queue import wire
from appliance.queue.client import Delivery, QueueClient
from appliance.queue.errors import LeaseLost, NoRoute, RemoteError, SettleUnknown
from tests.unit.queue.bridges import Side, Wire, clusters, start

DEADLINE_S = 60.0
LEASE_S = 1.0
SEED = 20

Order = dict[tuple[str, str], list[str]]
"""Ids by (origin, address) in the order of their arrival."""


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await what():  # noqa: ASYNC110  (other processes set no event of ours)
            await asyncio.sleep(0.05)


async def depths(q: QueueClient, beginning: str) -> list[Depth]:
    stats = await q.call("queue.stats", None, QueueStats)
    return [d for d in stats.depths if d.address.startswith(beginning)]


async def depth(q: QueueClient, address: str) -> Depth:
    return next((d for d in await depths(q, address) if d.address == address), Depth(address=address))


async def route_of(q: QueueClient) -> RouteStatus:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(RemoteError):  # a bridge that has just been started is not heard of yet
                return (await q.call("bridge.routes", None, RoutesStatus)).routes[0]
            await asyncio.sleep(0.05)


async def take(q: QueueClient, pattern: str, number: int, credit: int = 256) -> list[Delivery]:
    """Return `number` deliveries, all of them done."""
    taken: list[Delivery] = []
    async with asyncio.timeout(DEADLINE_S):
        async for delivery in q.consume(pattern, credit):
            taken.append(delivery)
            await delivery.done()
            if len(taken) == number:
                break
    return taken


async def stored(q: QueueClient, pattern: str, number: int) -> Order:
    """Return what the broker stored, once it is `number` messages, in the order in which it did."""
    found: Order = defaultdict(list)
    for delivery in await take(q, pattern, number):
        found[delivery.origin, delivery.address].append(delivery.id)
    return found


def test_a_message_for_a_cluster_without_a_route_is_refused() -> None:
    async def main(a: Side) -> None:
        async with a.client() as q:
            with pytest.raises(NoRoute):
                await q.publish("lan/b/orders", b"")

    with clusters("a") as (a,):
        start([a])
        asyncio.run(main(a))


def test_a_message_arrives_with_all_it_has() -> None:
    async def main(a: Side, b: Side) -> None:
        async with a.client() as qa, b.client() as qb:
            await qa.publish("lan/b/gone", b"", id="gone", expires_s=0.0)
            await qa.publish("lan/b/orders", b"slow", id="1", key="k", delay_s=1.0)
            await qa.publish("lan/b/orders", b"quick", id="2", key="k", max_attempts=1)
            published = time.time()
            b.start()
            a.start_bridge()
            first, second = await take(qb, "orders", 2)
            assert [(d.id, d.body, d.origin, d.address) for d in (first, second)] == [
                ("1", b"slow", "lan/a/tester", "orders"), ("2", b"quick", "lan/a/tester", "orders"),
            ]  # fmt: skip
            assert first.published_at - published < DEADLINE_S
            await qa.publish("lan/b/once", b"", max_attempts=1)
            async for delivery in qb.consume("once"):
                await delivery.retry(0.0, "one attempt is all it has")
                break

            async def dead() -> bool:
                return (await depth(qb, "once")).dead == 1

            await until(dead)
            assert (await depth(qa, "lan/b/gone")).expired_total == 1
            assert (await depth(qa, "lan/b/orders")).done_total == 2

    with clusters("a", "b") as (a, b):
        b.admit(a)
        a.route(b)
        a.start()
        asyncio.run(main(a, b))


def test_what_the_other_side_will_never_take_is_a_dead_letter_with_its_reason() -> None:
    async def main(a: Side) -> None:
        async with a.client() as q:
            await q.publish("lan/b/secret", b"")
            await q.publish("lan/b/orders", b"x" * 2000)
            await q.publish("lan/b/orders", b"x" * 600)
            await q.publish("lan/b/orders", b"fits", id="fits")
            reasons = [d.body.decode(errors="replace") for d in await take(q, "notice.mail", 3)]
            assert any("lan/a may not publish to secret. (not-permitted)" in reason for reason in reasons)
            assert any("takes bodies of at most 1000 bytes" in reason for reason in reasons)
            assert any("the address orders holds at most 500. (body-too-large)" in reason for reason in reasons)

            async def arrived() -> bool:
                return (await depth(q, "lan/b/orders")).done_total == 1

            await until(arrived)
            assert (await route_of(q)).refused_total == 2

    with clusters("a", "b") as (a, b):
        b.settings = {"max_body": 1000, "limits": [{"pattern": "orders", "max_bytes": 500}]}
        b.admit(a, publish=("orders",))
        a.route(b)
        start([a, b])
        asyncio.run(main(a))


def test_nobody_speaks_for_a_cluster_that_he_is_not() -> None:
    item = wire.Item("orders", "1", origin="lan/c/tester", way=("lan/c",))

    async def statuses(side: Side, name: str, *items: wire.Item) -> list[str]:
        async with side.client(name) as q:
            results = await q.publish_whole(items, [b""] * len(items), deadline_s=DEADLINE_S)
            return [trouble.fault.code for trouble in results.troubles]

    with clusters("b") as (b,):
        b.grant("lan/a", Rights(publish=("*",), relay=("lan/a/*",)))
        b.grant("lan/t", Rights(publish=("*",), relay=("*/*/*",)))
        start([b])
        own = wire.Item("orders", "2", origin="lan/b/tester", way=("lan/a",))
        short = wire.Item("orders", "3", origin="tester", way=("lan/a",))
        nameless = wire.Item("orders", "4", way=("lan/a",))
        far = wire.Item("orders", "5", origin="lan/a/tester", way=tuple(f"lan/x{n}" for n in range(9)))
        assert asyncio.run(statuses(b, "tester", item)) == ["not-permitted"]
        assert asyncio.run(statuses(b, "lan/a", item)) == ["not-permitted"]
        assert asyncio.run(statuses(b, "lan/t", item)) == []
        expected = ["routing-loop", "routing-loop", "bad-address", "routing-loop"]
        assert asyncio.run(statuses(b, "lan/t", own, short, nameless, far)) == expected


def test_two_clusters_that_route_at_each_other_do_not_send_a_message_round() -> None:
    async def main(a: Side, b: Side) -> None:
        async with a.client() as qa, b.client() as qb:
            await qa.publish("lan/c/orders", b"", id="lost")
            [notice] = await take(qb, "notice.mail", 1)
            assert b"comes back to lan/a" in notice.body
            assert (await depth(qa, "lan/c/orders")).done_total == 1

    with clusters("a", "b") as (a, b):
        for one, other in ((a, b), (b, a)):
            one.route(other, to="lan/c")
            other.admit(one, transit=True)
        start([a, b])
        asyncio.run(main(a, b))


def test_three_clusters_in_a_ring_do_not_send_a_message_round() -> None:
    async def main(a: Side, c: Side) -> None:
        async with a.client() as qa, c.client() as qc:
            await qa.publish("lan/x/orders", b"", id="lost")
            [notice] = await take(qc, "notice.mail", 1)
            assert b"comes back to lan/a" in notice.body
            assert (await depth(qa, "lan/x/orders")).done_total == 1

    with clusters("a", "b", "c") as (a, b, c):
        for one, other in ((a, b), (b, c), (c, a)):
            one.route(other, to="lan/x")
            other.admit(one, transit=True)
        start([a, b, c])
        asyncio.run(main(a, c))


def test_a_ring_that_does_not_hold_the_origin_loses_no_message() -> None:
    async def main(a: Side, d: Side) -> None:
        async with a.client() as qa, d.client() as qd:
            await qa.publish("lan/x/orders", b"", id="lost")
            [notice] = await take(qd, "notice.mail", 1)
            assert b"comes back to lan/b" in notice.body, "it is no duplicate, which would be the end of it"

    with clusters("a", "b", "c", "d") as (a, b, c, d):
        for one, other in ((a, b), (b, c), (c, d), (d, b)):
            one.route(other, to="lan/x")
            other.admit(one, transit=True)
        start([a, b, c, d])
        asyncio.run(main(a, d))


def test_a_cluster_in_between_passes_on_and_an_answer_comes_back() -> None:
    async def main(a: Side, c: Side) -> None:
        async with a.client() as qa, c.client() as qc:
            await qa.publish("lan/c/orders", b"question", id="1")
            async for delivery in qc.consume("orders"):
                assert delivery.origin == "lan/a/tester"
                await qc.move(delivery, "lan/a/answers", b"answer", id="1")
                break
            [answer] = await take(qa, "answers", 1)
            assert (answer.origin, answer.body) == ("lan/c/tester", b"answer")

    with clusters("a", "b", "c") as (a, b, c):
        a.route(b, to="lan/c")
        b.route(c)
        b.route(a)
        c.route(b, to="lan/a")
        for one, other in ((a, b), (c, b)):
            other.admit(one)
            one.admit(other, transit=True)
        start([a, b, c])
        asyncio.run(main(a, c))


def test_an_outage_makes_no_dead_letters_and_holds_nothing_in_memory() -> None:
    async def main(a: Side, b: Side) -> None:
        async with a.client() as q:
            b.signal(signal.SIGSTOP)
            await q.publish_many("lan/b/orders", [(str(n), b"x" * 1000) for n in range(5000)], deadline_s=DEADLINE_S)

            async def carried() -> bool:
                return (await depth(q, "lan/b/orders")).leased > 0

            async def given_back() -> bool:
                here = await depth(q, "lan/b/orders")
                status = await route_of(q)
                away = not status.connected and "was not reached" in status.problem
                return away and (here.ready, here.leased, status.in_hand) == (5000, 0, 0)

            await until(carried)
            await until(given_back)
            assert (await route_of(q)).lag_s > 0
            b.signal(signal.SIGCONT)
            async with b.client() as qb:
                assert await stored(qb, "orders", 5000) == {("lan/a/tester", "orders"): [str(n) for n in range(5000)]}

            async def at_rest() -> bool:
                here = await depth(q, "lan/b/orders")
                return (here.ready, here.leased, here.dead, here.done_total) == (0, 0, 0, 5000)

            await until(at_rest)
            assert (await route_of(q)).lag_s == 0.0

    with clusters("a", "b") as (a, b):
        b.settings = {"lease_s": LEASE_S, "heartbeat_s": 0.2}
        b.admit(a)
        a.route(b, answer_s=2.0)
        start([a, b])
        asyncio.run(until_connected(a))
        asyncio.run(main(a, b))


def test_what_held_a_route_up_is_over_once_it_is_connected_and_nothing_waits() -> None:
    async def main(a: Side, b: Side) -> None:
        async with a.client() as q:

            async def away() -> bool:
                status = await route_of(q)
                return not status.connected and status.problem == "The broker was not reached within 0.5 s."

            async def at_rest() -> bool:
                status = await route_of(q)
                return status.connected and status.problem == ""

            await until(away)
            await asyncio.to_thread(b.start)
            await until(at_rest)

    with clusters("a", "b") as (a, b):
        b.admit(a)
        a.route(b, answer_s=0.5)
        start([a])
        asyncio.run(main(a, b))


async def until_connected(a: Side) -> None:
    """Return when the bridge of a has reached the other side."""
    async with a.client() as q:

        async def connected() -> bool:
            return (await route_of(q)).connected

        await until(connected)


def test_the_other_sides_key_may_rotate_and_is_shown_before() -> None:
    async def main(a: Side, b: Side) -> None:
        async with a.client() as qa:
            assert (await route_of(qa)).next_key == b.next_keys.public
            await asyncio.to_thread(b.rotate)
            await qa.publish("lan/b/orders", b"", id="after")
            async with b.client() as qb:
                assert [d.id for d in await take(qb, "orders", 1)] == ["after"]

    with clusters("a", "b") as (a, b):
        b.admit(a)
        a.route(b)
        start([a, b])
        asyncio.run(until_connected(a))
        asyncio.run(main(a, b))


def test_a_busy_address_holds_up_no_other_and_keeps_its_order() -> None:
    async def main(a: Side, b: Side) -> None:
        async with a.client() as qa, b.client() as qb:
            for n in range(100):
                await qa.publish("lan/b/full", b"", id=f"full-{n}")
            await qa.publish("lan/b/free", b"", id="free")
            assert [d.id for d in await take(qb, "free", 1)] == ["free"]
            assert (await depth(qb, "full")).ready == 25
            found = await stored(qb, "full", 100)
            assert found == {("lan/a/tester", "full"): [f"full-{n}" for n in range(100)]}
            assert (await depth(qa, "lan/b/full")).dead == 0

    with clusters("a", "b") as (a, b):
        b.settings = {"limits": [{"pattern": "full", "max_depth": 25}]}
        b.admit(a)
        a.route(b)
        start([a, b])
        asyncio.run(main(a, b))


def test_a_route_keeps_to_its_rate() -> None:
    async def main(a: Side, b: Side) -> None:
        async with a.client() as qa, b.client() as qb:
            began = time.monotonic()
            await qa.publish_many("lan/b/orders", [(str(n), b"") for n in range(90)])
            await take(qb, "orders", 90)
            assert time.monotonic() - began >= 2.0, "thirty at once, and sixty more at thirty a second"

    with clusters("a", "b") as (a, b):
        b.admit(a)
        a.route(b, messages_per_s=30.0)
        start([a, b])
        asyncio.run(main(a, b))


def test_a_route_that_is_taken_away_and_comes_again_loses_nothing() -> None:
    async def main(a: Side, b: Side) -> None:
        async with a.client() as qa, b.client() as qb:
            ids = [str(n) for n in range(3000)]
            await qa.publish_many("lan/b/orders", [(name, b"") for name in ids], deadline_s=DEADLINE_S)
            assert await asyncio.to_thread(a.stop_bridge) == 0
            routes, a.routes = a.routes, ()
            a.write_access()
            a.reload()
            with pytest.raises(NoRoute):
                await qa.publish("lan/b/orders", b"")
            a.routes = routes
            a.write_access()
            a.reload()
            await asyncio.to_thread(a.start_bridge)
            assert await stored(qb, "orders", 3000) == {("lan/a/tester", "orders"): ids}

    with clusters("a", "b") as (a, b):
        b.admit(a)
        a.route(b)
        start([a, b])
        asyncio.run(main(a, b))


class Faults:
    """What may happen on the way from a to b, drawn by chance."""

    def __init__(self, a: Side, b: Side, line: Wire, chance: random.Random) -> None:
        self._a = a
        self._b = b
        self._line = line
        self._chance = chance

    async def run(self) -> None:
        """Let every kind of fault happen several times."""
        faults = [self._cut] * 4 + [self._freeze, self._kill_bridge, self._kill_broker, self._pause] * 2
        self._chance.shuffle(faults)
        for fault in faults:
            await fault()
            await self._rest()

    async def _rest(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.05, 0.3))

    async def _cut(self) -> None:
        self._line.cut()
        await self._rest()
        self._line.mend()

    async def _freeze(self) -> None:
        self._line.freeze()
        await self._rest()
        self._line.mend()

    async def _kill_bridge(self) -> None:
        await asyncio.to_thread(self._a.kill_bridge)
        await asyncio.to_thread(self._a.start_bridge)

    async def _kill_broker(self) -> None:
        side = self._chance.choice((self._a, self._b))
        await asyncio.to_thread(side.kill)
        await asyncio.to_thread(side.start)

    async def _pause(self) -> None:
        assert self._a.bridge is not None
        self._a.bridge.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5 * LEASE_S)
        self._a.bridge.send_signal(signal.SIGCONT)


async def publish_all(side: Side, origin: str, number: int, sent: Order) -> None:
    """Publish to five addresses, keyed and not, fifty at a time."""
    async with side.client(origin) as q:
        for first in range(0, number, 50):
            numbers = range(first, first + 50)
            for n in numbers:
                sent[f"lan/a/{origin}", f"to.{n % 5}"].append(f"{origin}-{n}")
            asked = (
                q.publish(
                    f"lan/b/to.{n % 5}", b"", id=f"{origin}-{n}", key=str(n % 3) if n % 2 else None,
                    deadline_s=DEADLINE_S,
                )
                for n in numbers
            )  # fmt: skip
            await asyncio.gather(*asked)


async def arrivals(q: QueueClient, number: int) -> Order:
    """Return what was stored, by its number in the store; a delivery that comes again changes nothing."""
    found: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    async with asyncio.timeout(2 * DEADLINE_S), asyncio.TaskGroup() as group:
        async for delivery in q.consume("to.*", 64):
            found[delivery.origin, delivery.address][delivery.token[0]] = delivery.id
            group.create_task(ended(delivery))
            if sum(map(len, found.values())) == number:
                break
    return {where: [by_seq[seq] for seq in sorted(by_seq)] for where, by_seq in found.items()}


async def ended(delivery: Delivery) -> None:
    """Say that it is done; while a broker is down nobody may hear it, and then it comes again."""
    with contextlib.suppress(LeaseLost, SettleUnknown):
        await delivery.done(deadline_s=DEADLINE_S)


def test_everything_arrives_once_and_in_order_whatever_is_cut_paused_or_killed() -> None:
    """The far side has few places, so that it is busy now and then."""
    number = 3000

    async def main(a: Side, b: Side, line: Wire) -> None:
        sent: Order = defaultdict(list)
        async with b.client() as qb, asyncio.TaskGroup() as group:
            arrived = group.create_task(arrivals(qb, 2 * number))
            for origin in ("one", "two"):
                group.create_task(publish_all(a, origin, number, sent))
            group.create_task(Faults(a, b, line, random.Random(SEED)).run())
        assert arrived.result() == sent
        async with b.client() as qb:
            assert sum(d.published_total for d in await depths(qb, "to.")) == 2 * number, "each of them once"
        async with a.client() as qa:

            async def at_rest() -> bool:
                return sum(d.done_total for d in await depths(qa, "lan/b/")) == 2 * number

            await until(at_rest)
            assert sum(d.dead_total for d in await depths(qa, "lan/b/")) == 0

    with clusters("a", "b", lease_s=LEASE_S, heartbeat_s=0.2) as (a, b):
        b.settings = b.settings | {"max_depth": 200}
        for origin in ("one", "two"):
            a.grant(origin, Rights(publish=("*/*/*",)))
        b.start()
        line = Wire(int(b.endpoint.rpartition(":")[2]))
        try:
            b.admit(a)
            a.route(b, line.endpoint)
            a.start()
            a.start_bridge()
            asyncio.run(main(a, b, line))
        finally:
            line.close()

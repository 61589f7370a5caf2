"""A planned stop of a real broker process: nobody loses what is in hand, and no attempt is counted twice."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from appliance.contracts.traffic import QueueStats
from appliance.queue import wire
from appliance.queue.broker import PARTING_S
from appliance.queue.client import Delivery, QueueClient
from tests.unit.queue.desk import Desk
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import Broker, running

SOON_S = 60.0
MESSAGES = 400
RESTARTS = 3


async def wait_until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not what():  # noqa: ASYNC110  (several tasks bring it about, one of them in the client)
            await asyncio.sleep(0.005)


def test_restarts_under_load_repeat_nothing_and_take_nothing_away() -> None:
    seen: Counter[str] = Counter()
    attempts: Counter[int] = Counter()

    async def handle(delivery: Delivery, pause_s: float) -> None:
        seen[delivery.id] += 1
        attempts[delivery.attempt] += 1
        await asyncio.sleep(pause_s)  # the work, some of which lasts for longer than the broker is away
        await delivery.done(deadline_s=SOON_S)

    async def consume(q: QueueClient, handlers: asyncio.TaskGroup) -> None:
        pauses = itertools.cycle([0.0, 0.01, 0.05, 1.5])
        async for delivery in q.consume("load", credit=16):
            handlers.create_task(handle(delivery, next(pauses)))

    async def produce(q: QueueClient) -> None:
        for n in range(MESSAGES):
            assert not (await q.publish("load", b"x" * 1000, id=str(n), deadline_s=SOON_S)).duplicate

    def reached(goal: int) -> bool:
        return len(seen) >= goal

    async def main(broker: Broker) -> None:
        async with broker.client() as p, broker.client() as one, broker.client() as two, asyncio.TaskGroup() as group:
            consumers = [group.create_task(consume(q, group)) for q in (one, two)]
            producer = group.create_task(produce(p))
            for goal in range(MESSAGES // (RESTARTS + 1), MESSAGES, MESSAGES // (RESTARTS + 1)):
                await wait_until(partial(reached, goal))
                assert await asyncio.to_thread(broker.stop) == 0
                await asyncio.to_thread(broker.start)
            await producer
            async with asyncio.timeout(SOON_S):
                while True:
                    stats = await p.call("queue.stats", None, QueueStats, deadline_s=SOON_S)
                    load = next(depth for depth in stats.depths if depth.address == "load")
                    if load.done_total == MESSAGES:
                        break
                    await asyncio.sleep(0.05)
            for consumer in consumers:
                consumer.cancel()

    with running() as broker:
        asyncio.run(main(broker))
    assert len(seen) == MESSAGES
    assert set(seen.values()) == {1}
    assert set(attempts) == {1}


def test_a_stop_tells_the_clients_and_does_not_wait_for_those_who_know() -> None:
    async def main(broker: Broker) -> None:
        async with broker.client() as one, broker.client() as two:
            for client in (one, two):
                await client.wait_connected(SOON_S)
            stopping = asyncio.create_task(asyncio.to_thread(broker.stop))
            await wait_until(lambda: not (one.connected or two.connected))
            assert await stopping == 0
            await asyncio.to_thread(broker.start)
            for client in (one, two):
                await client.wait_connected(SOON_S)

    with running(lease_s=3600.0, heartbeat_s=1800.0) as broker:  # nobody would find out by silence
        asyncio.run(main(broker))


def test_a_peer_that_does_not_answer_bye_holds_up_the_stop_for_a_moment_only() -> None:
    with running() as broker, Peer(broker.connection()) as peer:
        peer.publish("a", "1")
        held = peer.take("a")
        before = time.monotonic()
        assert broker.stop() == 0
        assert time.monotonic() - before >= PARTING_S
        assert peer.receive(wire.Bye)[0].code == "broker-stopping"
        broker.start()
        assert peer.hello()
        assert peer.settle(held.token).statuses == (wire.STORED,)


def test_what_could_not_be_sent_before_the_stop_is_no_attempt(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hello("alice")
    desk.publish("alice", wire.Item("a", "1"))
    desk.engine.handle(b"alice", "alice", wire.to_broker(wire.Consume(2, 5, "a", 1)))
    (delivery,) = (parcel for parcel in desk.engine.run_turn() if parcel.leases)
    desk.engine.undelivered(delivery, gone=False)
    (bye,) = desk.engine.say_bye()
    assert wire.from_broker(bye.frames)[0] == wire.Bye("broker-stopping", "The broker stops; say Hello again.")
    assert desk.engine.parting == {b"alice"}
    desk.engine.handle(b"alice", "alice", wire.to_broker(wire.Bye()))
    assert desk.engine.parting == set()
    desk.restart()
    desk.hello("bob")
    desk.consume("bob", "a")
    assert [handed.attempt for handed in desk.deliveries("bob")] == [1]
    desk.store.close()

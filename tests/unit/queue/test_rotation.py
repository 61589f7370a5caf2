"""Keys that change while all goes on: the broker's, announced ahead, and a client's, listed twice for a while."""

import asyncio

import msgspec
import pytest

from appliance.contracts.access import Access
from appliance.queue import wire
from appliance.queue.client import PublishUnknown, QueueClient, generate_keys
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import Broker, running
from tests.unit.queue.test_work import SOON_S, account, first, wait_account

DEADLINE_S = 4 * SOON_S


def test_a_rotation_of_the_brokers_key_under_load_loses_nothing() -> None:
    published: list[str] = []
    done: list[str] = []
    rest = asyncio.Event()

    async def produce(q: QueueClient, name: str) -> None:
        number = 0
        while not rest.is_set():
            number += 1
            await q.publish("load", b"", id=f"{name}-{number}", deadline_s=DEADLINE_S)
            published.append(f"{name}-{number}")

    async def consume(q: QueueClient, number: int) -> None:
        deliveries = q.consume("load")
        for _ in range(number):
            delivery = await first(deliveries)
            assert delivery.attempt == 1
            await delivery.done(deadline_s=DEADLINE_S)
            done.append(delivery.id)
        await deliveries.aclose()

    async def main(broker: Broker) -> None:
        async with broker.client() as p, broker.client() as c, asyncio.timeout(DEADLINE_S):
            await p.publish("held", b"")
            held = await first(c.consume("held"))
            producers = [asyncio.create_task(produce(p, name)) for name in ("a", "b")]
            await consume(c, 100)
            for _ in range(2):
                consumer = asyncio.create_task(consume(c, 200))
                await asyncio.to_thread(broker.rotate)
                await consumer
            rest.set()
            await asyncio.gather(*producers)
            await consume(c, len(published) - len(done))
            assert sorted(done) == sorted(published)
            await held.done()
            await wait_account(p, "held", ready=0, leased=0, done_total=1)
            assert (entry := await account(p, "load")) is not None
            assert (entry.ready, entry.leased, entry.done_total) == (0, 0, len(published))

    with running() as broker:
        asyncio.run(main(broker))


def test_who_starts_with_the_announced_key_comes_in_before_and_after_the_rotation() -> None:
    async def main(broker: Broker) -> None:
        knows_both = msgspec.structs.replace(broker.connection(), next_key=broker.next_keys.public)
        knows_one = broker.connection()
        async with QueueClient(knows_both) as q:
            await q.publish("before", b"")
        await asyncio.to_thread(broker.rotate)
        async with QueueClient(knows_both) as q:
            await q.publish("after", b"")
        async with QueueClient(knows_one) as q:
            with pytest.raises(PublishUnknown):
                await q.publish("never", b"", deadline_s=0.5)

    with running() as broker:
        asyncio.run(main(broker))


def test_the_next_key_is_announced_with_the_welcome(broker: Broker) -> None:
    with Peer(broker.connection()) as peer:
        assert peer.hello().next_key == broker.next_keys.public


def test_a_clients_key_rotates_by_being_listed_beside_the_old_one() -> None:
    async def main(broker: Broker) -> None:
        keys, rights = broker.clients["tester"]
        fresh = generate_keys()
        async with broker.client(keys=keys) as old:
            await old.publish("work", b"", id="1")
            held = await first(old.consume("work"))
            broker.others = (Access(name="tester", public_key=fresh.public, rights=rights),)
            broker.write_access()
            await asyncio.to_thread(broker.reload)
            await held.done()  # adding a key disturbs nobody
            async with broker.client(keys=fresh) as new:
                assert (await new.publish("work", b"", id="1")).duplicate  # one name, one origin
                await new.publish("work", b"", id="2")
                broker.clients["tester"] = (fresh, rights)
                broker.others = ()
                broker.write_access()
                await asyncio.to_thread(broker.reload)
                assert (await first(new.consume("work"))).id == "2"
                with pytest.raises(PublishUnknown):
                    await old.publish("work", b"", deadline_s=0.5)

    with running() as broker:
        asyncio.run(main(broker))


def test_one_key_cannot_speak_as_two(broker: Broker) -> None:
    keys, rights = broker.clients["tester"]
    broker.others = (Access(name="another", public_key=keys.public, rights=rights),)
    broker.write_access()
    with Peer(broker.connection()) as peer:
        assert peer.publish("twice", "twice") == wire.STORED
    broker.others = ()
    broker.write_access()
    assert "the key list stays as it was" in broker.log()

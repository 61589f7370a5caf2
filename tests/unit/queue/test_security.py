"""Who gets in, what each may do, and what happens the moment that changes."""

import asyncio
import os
import time
from collections.abc import Callable

import pytest
import zmq

from appliance.contracts.access import Rights
from appliance.queue import wire
from appliance.queue.client import NotPermitted, PublishUnknown, QueueClient, generate_keys
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import ALL, Broker, running
from tests.unit.queue.test_work import SOON_S, first, wait_account


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_an_unknown_key_gets_nowhere(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client(keys=generate_keys()) as q:
            with pytest.raises(PublishUnknown):
                await q.publish("work", b"", deadline_s=1.0)
        async with broker.client() as q:
            await q.publish("known", b"")

    asyncio.run(main())
    assert "refused the key" in broker.log()


def test_a_peer_without_encryption_gets_nowhere(broker: Broker) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as plain:
        plain.linger = 0
        plain.connect(broker.endpoint)
        plain.send_multipart(wire.to_broker(wire.Hello("plain")))
        assert plain.poll(500) == 0


def test_a_broker_with_another_key_is_not_trusted(broker: Broker) -> None:
    async def main() -> None:
        connection = broker.connection()
        other = type(connection)(connection.endpoint, generate_keys().public, connection.keys, "lan", "main")
        async with QueueClient(other) as q:
            with pytest.raises(PublishUnknown):
                await q.publish("work", b"", deadline_s=0.5)

    asyncio.run(main())


def test_every_right_is_asked_for(broker: Broker) -> None:
    broker.grant("nobody", Rights(publish=("mine.*",), consume=("mine.*",), subscribe=("mine.*",), call=("mine.*",)))

    async def answer(_request: object) -> None:
        return None

    async def main() -> None:
        async with broker.client("nobody") as q:
            await q.publish("mine.a.b", b"")
            await (await first(q.consume("mine.*"))).done()
            for refused in (
                lambda: q.publish("yours", b""),
                lambda: first(q.consume("yours")),
                lambda: first(q.consume("*")),
                lambda: q.emit("mine.topic", b""),
                lambda: first(q.events("m*")),
                lambda: q.call("queue.stats", None, dict),
                lambda: q.serve("mine.name", answer),
            ):
                with pytest.raises(NotPermitted):
                    await refused()

    asyncio.run(main())


def test_a_name_of_the_brokers_own_cannot_be_served(broker: Broker) -> None:
    async def answer(_request: object) -> None:
        return None

    async def main() -> None:
        async with broker.client() as q:
            with pytest.raises(NotPermitted):
                await q.serve("queue.stats", answer)

    asyncio.run(main())


def test_a_revoked_key_is_out_at_once_and_its_work_goes_to_another() -> None:
    async def main(broker: Broker) -> None:
        async with broker.client() as q:
            with Peer(broker.connection("thief")) as thief:
                await q.publish("precious", b"1")
                assert (await asyncio.to_thread(thief.take, "precious")).attempt == 1
                broker.revoke("thief")
                wait_until(lambda: "the key of thief was revoked" in broker.log())
                assert (await first(q.consume("precious"))).attempt == 2
                await q.publish("precious", b"2")
                thief.send(wire.Publish(1, (wire.Item("precious", "forged"),)), b"3")
                thief.send(wire.Hello("thief"))
                assert thief.hears_nothing(300)
                await wait_account(q, "precious", ready=1, leased=1)
            async with broker.client(keys=thief_keys) as again:
                with pytest.raises(PublishUnknown):
                    await again.publish("precious", b"4", deadline_s=0.5)

    with running() as broker:
        broker.grant("thief", ALL)
        thief_keys = broker.clients["thief"][0]
        asyncio.run(main(broker))


def test_rights_that_change_take_effect_on_a_session_that_is_open() -> None:
    async def main(broker: Broker) -> None:
        async with broker.client("changing") as q:
            await q.publish("before", b"")
            keys, _ = broker.clients["changing"]
            broker.clients["changing"] = (keys, Rights(publish=("after",)))
            broker.write_access()
            async with asyncio.timeout(SOON_S):
                while True:
                    try:
                        await q.publish("before", b"")
                    except NotPermitted:
                        break
            await q.publish("after", b"")

    with running() as broker:
        broker.grant("changing", ALL)
        asyncio.run(main(broker))


@pytest.mark.parametrize("text", [b'{"entries": [{"name": "x"}]}', b'{"entries": [{"name": "\xff"}]}'])
def test_a_key_list_that_does_not_validate_changes_nothing(broker: Broker, text: bytes) -> None:
    said = broker.log().count("the key list stays as it was")

    async def main() -> None:
        async with broker.client() as q:
            (broker.directory / "access.json.new").write_bytes(text)
            os.rename(broker.directory / "access.json.new", broker.directory / "access.json")
            wait_until(lambda: broker.log().count("the key list stays as it was") > said)
            await q.publish("still", b"")

    asyncio.run(main())
    broker.write_access()


def test_a_routing_identity_that_another_had_gives_nothing(broker: Broker) -> None:
    broker.grant("weak", Rights())
    with Peer(broker.connection(), identity=b"same") as strong:
        assert strong.publish("identity", "identity-1") == wire.STORED
    with Peer(broker.connection("weak"), identity=b"same", hello=False) as weak:
        weak.send(wire.Publish(1, (wire.Item("identity", "identity-2"),)), b"")
        assert weak.receive(wire.Bye)[0].code == "session-unknown"
        weak.hello()
        assert weak.publish("identity", "identity-2") == wire.REFUSED

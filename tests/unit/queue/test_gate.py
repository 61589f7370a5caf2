"""Peers from outside, who come in by the gate: what they may do, and what they cannot do to anybody else."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import msgspec
import pytest

from appliance.config import Config, Queue, QueuePeer
from appliance.contracts.access import AccessList, Rights
from appliance.queue import wire
from appliance.queue.client import NotPermitted, PublishUnknown, generate_keys
from appliance.queue.delivery import Request
from appliance.queue.spec import render
from tests.outside.endless_peer import send_endless
from tests.unit.placement import site_of
from tests.unit.queue.gates import MAX_BODY, MEMORY_MB, Gate, guarded, in_thread, resident_mb
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import ALL, running
from tests.unit.queue.test_security import wait_until
from tests.unit.queue.test_work import first, wait_account

FAR = Rights(publish=("in.*",), consume=("out",), call=("double",), subscribe=("news.*",))


@pytest.fixture(scope="module")
def shared() -> Iterator[Gate]:
    """A gate that a module's tests share and leave alone."""
    with guarded() as gate:
        gate.broker.grant("far", FAR, outside=True)
        yield gate


@pytest.fixture
def own() -> Iterator[Gate]:
    """A gate of one's own, before a broker that is patient with whoever is silent."""
    with guarded(lease_s=60.0, heartbeat_s=0.2) as gate:
        gate.broker.grant("far", FAR, outside=True)
        yield gate


def test_a_peer_from_outside_has_its_rights_and_no_others(shared: Gate) -> None:
    async def double(request: Request) -> int:
        assert request.caller == "far"
        return 2 * request.decode(int)

    async def main() -> None:
        async with shared.broker.client() as near, shared.client("far") as far:
            await far.publish("in.a", b"1" * MAX_BODY, id="a")
            assert (await far.publish("in.a", b"1", id="a")).duplicate
            delivery = await first(near.consume("in.*"))
            assert (delivery.origin, len(delivery.body)) == ("far", MAX_BODY)
            await delivery.done()
            await near.publish("out", b"2")
            answered = await first(far.consume("out"))
            assert answered.body == b"2"
            await answered.done()
            await wait_account(near, "out", ready=0, leased=0, done_total=1)
            await near.serve("double", double)
            assert await far.call("double", b"\x15", int) == 42
            await near.emit("news.today", b"3")
            assert (await first(far.events("news.*"))).body == b"3"
            for refused in (lambda: far.publish("out", b""), lambda: first(far.consume("in.a"))):
                with pytest.raises(NotPermitted):
                    await refused()

    asyncio.run(main())


@pytest.mark.parametrize("way", ["gate", "broker"])
def test_each_key_has_one_way_in(shared: Gate, way: str) -> None:
    stranger = generate_keys()
    name, wrong, log = {
        "gate": ("tester", shared.endpoint, shared.log),
        "broker": ("far", shared.broker.endpoint, shared.broker.log),
    }[way]
    keys = shared.broker.clients[name][0]
    for refused in (stranger, keys):
        connection = shared.broker.connection(keys=refused, endpoint=wrong)
        with Peer(connection, hello=False) as peer:
            peer.send(wire.Hello("wrong way"))
            wait_until(lambda key=refused.public: f"refused the key {key}" in log())  # type: ignore[misc]  # lambda
            assert peer.hears_nothing(200)


def test_only_the_broker_s_own_key_opens_the_gate_s_way(shared: Gate) -> None:
    way = f"ipc://{shared.broker.gate_socket}"
    for name in ("tester", "far"):
        keys = shared.broker.clients[name][0]
        refused = shared.broker.log().count(f"refused the key {keys.public}")
        with Peer(shared.broker.connection(name, endpoint=way), hello=False) as peer:
            key = shared.broker.clients["tester"][0].public.encode()
            peer.send_frames([b"route", key, *wire.to_broker(wire.Hello("forged"))])
            wait_until(lambda n=refused, k=keys.public: shared.broker.log().count(f"refused the key {k}") > n)  # type: ignore[misc]  # lambda
            assert peer.hears_nothing(200)


def test_the_gate_cannot_speak_for_a_key_of_the_machine(shared: Gate) -> None:
    """Even with the broker's own secret, nobody is inside who came from outside."""
    way = shared.broker.connection(keys=shared.broker.keys, endpoint=f"ipc://{shared.broker.gate_socket}")
    with Peer(way, hello=False) as gate:
        odd: list[list[bytes]] = [[b""], [b"lost"], [b"", b""], [b"peer", b"\xff"], [b"peer", b"\xff", b""]]
        for frames in odd:
            gate.send_frames(frames)
        for name, answers in (("tester", False), ("far", True)):
            key = shared.broker.clients[name][0].public.encode()
            gate.send_frames([name.encode(), key, *wire.to_broker(wire.Hello("forged"))])
            if answers:
                route, *frames = gate.receive_frames()
                assert route == b"far"
                assert isinstance(wire.from_broker(frames)[0], wire.Welcome)
        assert gate.hears_nothing(200)


def test_a_key_that_is_revoked_or_changes_sides_is_out_at_once(own: Gate) -> None:
    own.broker.grant("turncoat", ALL, outside=True)
    with Peer(own.connection("turncoat")) as turncoat, Peer(own.connection("far")) as far:
        assert turncoat.publish("in.x", "1") == wire.STORED
        own.broker.outside.remove("turncoat")
        own.broker.write_access()
        own.broker.reload()
        for message in (wire.Publish(1, (wire.Item("in.x", "2"),)), wire.Hello("again")):
            turncoat.send(message, *[b""] * message.bodies)
        assert far.publish("in.x", "3") == wire.STORED, "what was sent before it has been dealt with"
        assert turncoat.hears_nothing(200)
        own.broker.revoke("far")
        own.broker.reload()
        far.send(wire.Publish(1, (wire.Item("in.x", "4"),)), b"")
        assert far.hears_nothing(300)
    with Peer(own.broker.connection()) as inside:
        assert [inside.take("in.x").id, inside.take("in.x").id] == ["1", "3"]
        inside.send(wire.Consume(9, 9, "in.x", 9))
        assert inside.receive(wire.Results)[0].statuses == (wire.STORED,)
        assert inside.hears_nothing(200)


def test_the_key_of_a_peer_changes_without_a_gap(own: Gate) -> None:
    """As two operators do it: the next key is listed, taken into use there, and the first one taken off here."""
    old, new = generate_keys(), generate_keys()

    def listed(public_key: str, next_key: str | None) -> None:
        peer = QueuePeer(name="far/east", public_key=public_key, next_key=next_key, publish=("in.k",))
        site = site_of(Config(queue=Queue(peers=(peer,))))
        [file] = render(site, site.find("queue"))
        entries = msgspec.json.decode(file.content, type=AccessList).entries
        own.broker.others = tuple(entry for entry in entries if entry.outside)
        own.broker.write_access()
        own.broker.reload()

    def brought(number: int) -> wire.Publish:
        return wire.Publish(number, (wire.Item("in.k", str(number), origin="far/east/tester", way=("far/east",)),))

    def bring(peer: Peer, number: int) -> int:
        peer.send(brought(number), b"")
        return peer.receive(wire.Results)[0].statuses[0]

    listed(old.public, None)
    with Peer(own.connection("far", old)) as before:
        assert bring(before, 1) == wire.STORED
        assert before.publish("in.k", "own") == wire.STORED
        listed(old.public, new.public)
        with Peer(own.connection("far", new)) as after:
            assert [bring(after, 1), bring(after, 2), bring(before, 2), bring(before, 3)] == [
                wire.DUPLICATE, wire.STORED, wire.DUPLICATE, wire.STORED,
            ]  # fmt: skip
            assert after.publish("in.k", "own") == wire.DUPLICATE
            listed(new.public, None)
            before.send(brought(4), b"")
            assert bring(after, 5) == wire.STORED, "its session has lasted"
            assert before.hears_nothing(200)
    with Peer(own.broker.connection()) as inside:
        inside.send(wire.Consume(1, 1, "in.k", 9))
        ids: list[str] = []
        while len(ids) < 5:
            ids += [handed.id for handed in inside.receive(wire.Deliver)[0].items]
        assert ids == ["1", "own", "2", "3", "5"]


def test_a_message_that_is_too_much_ends_the_session_of_its_sender(shared: Gate) -> None:
    with Peer(shared.connection("far")) as greedy, Peer(shared.connection("far")) as other:
        greedy.send_frames([b"ARQ1", b"\x02", *[bytes(MAX_BODY)] * 3])
        assert greedy.receive(wire.Bye)[0].code == "wire-malformed"
        greedy.send_frames([b"ARQ1", b"\x02", *[b""] * 5000])
        assert greedy.receive(wire.Bye)[0].code == "wire-malformed"
        greedy.hello()
        many = tuple(wire.Item("in.b", f"many-{n}") for n in range(wire.MAX_ITEMS))
        greedy.send(wire.Publish(2, many), *[b""] * wire.MAX_ITEMS)
        assert greedy.receive(wire.Results)[0].statuses == (wire.STORED,) * wire.MAX_ITEMS
        other.send(wire.Heartbeat())
        other.receive(wire.Heartbeat)


class Inside:
    """A client of the machine that was there before and must not notice anything."""

    def __init__(self, gate: Gate) -> None:
        self.peer = Peer(gate.broker.connection(), hello=False)

    def __enter__(self) -> Peer:
        self.epoch = self.peer.hello().epoch
        return self.peer

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.peer.send(wire.Heartbeat())
                answer = wire.from_broker(self.peer.receive_frames())[0]
                assert isinstance(answer, wire.Heartbeat), "the session has lasted"
                assert self.peer.hello().epoch == self.epoch
        finally:
            self.peer.__exit__(None, None, None)


def test_a_killed_gate_loses_nothing_acknowledged_and_disturbs_nobody_inside(own: Gate) -> None:
    acknowledged: set[str] = set()

    async def publish(enough: asyncio.Event) -> None:
        number = 0
        async with own.client("far") as far:
            while not enough.is_set():
                number += 1
                try:
                    await far.publish("in.c", b"", id=str(number), deadline_s=30.0)
                except PublishUnknown:
                    continue
                acknowledged.add(str(number))

    async def reached(count: int) -> None:
        async with asyncio.timeout(60):
            while len(acknowledged) < count:  # noqa: ASYNC110  (counted by another task)
                await asyncio.sleep(0.01)

    async def main() -> None:
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish(enough))
            for _ in range(3):
                await reached(len(acknowledged) + 50)
                own.kill()
                await asyncio.to_thread(own.start)
            await reached(len(acknowledged) + 50)
            enough.set()

    with Inside(own):
        asyncio.run(main())
    with Peer(own.broker.connection()) as consumer:
        consumer.send(wire.Consume(1, 1, "in.c", wire.MAX_CREDIT))
        stored: set[str] = set()
        while not acknowledged <= stored:
            stored |= {handed.id for handed in consumer.receive(wire.Deliver)[0].items}


def test_work_in_hand_survives_the_gate(own: Gate) -> None:
    async def main() -> None:
        async with own.broker.client() as near, own.client("far") as far:
            await near.publish("out", b"long work")
            delivery = await first(far.consume("out"))
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
            await delivery.done(deadline_s=30.0)
            assert delivery.attempt == 1
            await wait_account(near, "out", ready=0, leased=0, done_total=1)

    asyncio.run(main())


def test_the_gate_ends_with_the_broker_it_knew_and_peers_meet_the_next_one_under_its_next_key(own: Gate) -> None:
    def crash() -> None:
        own.broker.kill()
        own.broker.start()

    async def main() -> None:
        async with own.client("far") as far:
            await far.publish("in.d", b"")
            for comes_back in (crash, own.broker.rotate):
                await asyncio.to_thread(comes_back)
                assert await asyncio.to_thread(own.process_ends) == 0
                await asyncio.to_thread(own.start)
                await far.publish("in.d", b"", deadline_s=30.0)

    asyncio.run(main())


def test_a_broker_that_stands_still_makes_the_peers_wait_and_the_gate_keeps_its_size(own: Gate) -> None:
    with Peer(own.connection("far"), high_water=1) as far:
        before = resident_mb(own.process)
        own.broker.signal(signal.SIGSTOP)
        try:
            sent = 0
            while sent < MEMORY_MB and far.may_send(1000):
                far.send(wire.Publish(sent, (wire.Item("in.e", str(sent)),)), bytes(MAX_BODY))
                sent += 1
            assert sent < MEMORY_MB / 2
            assert resident_mb(own.process) - before < 40
        finally:
            own.broker.signal(signal.SIGCONT)
        for _ in range(sent):
            assert far.receive(wire.Results)[0].statuses == (wire.STORED,)


@pytest.mark.parametrize("size", [1000, MAX_BODY])
def test_a_message_without_end_costs_the_gate_at_most(own: Gate, size: int) -> None:
    """In small frames it kills the gate; in large ones libzmq may only end the connection."""
    own.broker.grant("endless", Rights(), outside=True)
    broker = own.broker.process
    assert broker is not None
    with Inside(own) as inside, Peer(own.connection("far")) as far:
        assert far.publish("in.f", "before") == wire.STORED
        before = resident_mb(broker)
        way = own.connection("endless")
        assert send_endless(way.endpoint, way.server_key, way.keys, size, 4 * MEMORY_MB)
        assert resident_mb(broker) - before < 20
        assert inside.publish("local", "undisturbed") == wire.STORED
        if not own.running:
            own.start()
    with Peer(own.connection("far")) as far:
        assert far.publish("in.f", "before") == wire.DUPLICATE
        assert far.publish("in.f", "after") == wire.STORED


def test_a_peer_that_does_not_read_loses_its_session_and_the_others_are_served(own: Gate) -> None:
    with Peer(own.connection("far"), high_water=1) as deaf, Peer(own.connection("far")) as keen:
        deaf.send(wire.Subscribe(1, 1, "news.*"))
        deaf.receive(wire.Results)
        with Peer(own.broker.connection()) as near:
            for number in range(60):
                near.send(wire.Emit(number, f"news.{number % 12}"), bytes(MAX_BODY))
                near.receive(wire.Results)
                keen.send(wire.Heartbeat())
                keen.receive(wire.Heartbeat)
            wait_until(lambda: "does not take what it is sent" in own.log())
        assert keen.publish("in.g", "1") == wire.STORED
        deaf.send(wire.Heartbeat())
        assert deaf.receive(wire.Bye)[0].code == "session-unknown"
    assert own.running
    assert resident_mb(own.process) < MEMORY_MB


def test_what_is_held_for_a_peer_is_not_delivered_any_more_once_its_key_is_revoked() -> None:
    with running(max_body=MAX_BODY, lease_s=60.0) as broker:
        for name in ("far", "keen"):
            broker.grant(name, FAR, outside=True)
        with in_thread(broker) as (gate, way), Peer(broker.connection("far", endpoint=way), high_water=1) as deaf:
            deaf.send(wire.Subscribe(1, 1, "news.*"))
            deaf.receive(wire.Results)
            number = 0
            with Peer(broker.connection()) as near, Peer(broker.connection("keen", endpoint=way)) as keen:
                while not gate._held:
                    assert number < 1000, "all of it was taken"
                    number += 1
                    near.send(wire.Emit(number, f"news.{number}"), bytes(2**18))
                    near.receive(wire.Results)
                    keen.send(wire.Heartbeat())
                    keen.receive(wire.Heartbeat)  # what was for the other one has come to the gate before
            revoked = broker.revoke("far").public
            broker.reload()
            wait_until(lambda: gate._ring.find(revoked, outside=True) is None)
            turns = gate.turns
            wait_until(lambda: gate.turns > turns + 1)
            heard = []
            while not deaf.hears_nothing(500):
                heard.append(deaf.receive(wire.Happened)[0].topic)
            assert heard == [f"news.{n}" for n in range(1, number)]


def test_a_crowd_that_only_connects_keeps_no_peer_out(own: Gate) -> None:
    host, _, port = own.endpoint.removeprefix("tcp://").partition(":")
    with contextlib.ExitStack() as crowd:
        for _ in range(1500):
            crowd.enter_context(socket.create_connection((host, int(port)), 30))
        with Peer(own.connection("far")) as far:
            assert far.publish("in.h", "1") == wire.STORED

"""Clients that do not read what they are sent: what is kept for them has an end, and the others are served."""

import contextlib

from appliance.queue import wire
from appliance.queue.events import MAX_EVENT
from appliance.queue.sessions import HUSK_BYTES, Backlog, Parcel
from tests.unit.queue.gates import peak_mb, resident_mb
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import ALL, Broker, running
from tests.unit.queue.test_security import wait_until

EVENT = bytes(2**18)


SUBSCRIPTIONS = 200


def parcel(body: bytes, latest: tuple[int, str] | None = None) -> Parcel:
    return Parcel(b"route", None, [body], latest=latest)


def test_of_events_only_the_newest_of_a_topic_is_kept_in_the_place_of_the_first() -> None:
    backlog = Backlog()
    first, second = parcel(b"12"), parcel(b"3")
    for each in (parcel(b"old", (1, "a")), first, parcel(b"newest", (1, "a")), second, parcel(b"x", (2, "a"))):
        backlog.keep(each)
    assert [each.frames for each in backlog] == [[b"newest"], [b"12"], [b"3"], [b"x"]]
    assert backlog.bytes == 4 * HUSK_BYTES + 10
    backlog.sent()
    assert [each.frames for each in backlog] == [[b"12"], [b"3"], [b"x"]]
    assert backlog.bytes == 3 * HUSK_BYTES + 4
    backlog.clear()
    assert (bool(backlog), backlog.bytes) == (False, 0)


def test_clients_that_do_not_read_lose_their_sessions_before_the_broker_its_memory() -> None:
    def emit(broker: Broker) -> None:
        with contextlib.ExitStack() as emitters:
            near = [emitters.enter_context(Peer(broker.connection(f"near-{name}"))) for name in range(4)]
            for number in range(700):
                near[number % 4].send(wire.Emit(number, f"news.{number % 200}"), EVENT)
                assert near[number % 4].receive(wire.Results)[0].statuses == (wire.STORED,)

    with running(lease_s=60.0) as broker, contextlib.ExitStack() as deaf:
        for name in range(4):
            broker.grant(f"near-{name}", ALL)
        before = resident_mb(broker.process)
        for _ in range(6):
            peer = deaf.enter_context(Peer(broker.connection(), high_water=1))
            peer.send(wire.Subscribe(1, 1, "news.*"))
            peer.receive(wire.Results)
        emit(broker)
        wait_until(lambda: "does not read" in broker.log())
        assert resident_mb(broker.process) - before < 50 + 6 * 32 + 128


def test_an_event_for_very_many_is_in_memory_once() -> None:
    with running(lease_s=60.0) as broker, Peer(broker.connection()) as emitter, Peer(broker.connection()) as deaf:
        for number in range(SUBSCRIPTIONS):
            deaf.send(wire.Subscribe(number, number, "news"))
            deaf.receive(wire.Results)
        before = peak_mb(broker.process)
        emitter.send(wire.Emit(1, "news"), bytes(MAX_EVENT))
        assert emitter.receive(wire.Results)[0].statuses == (wire.STORED,)
        assert peak_mb(broker.process) - before < 30

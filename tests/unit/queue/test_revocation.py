"""From the instant a key is off the list nothing is accepted from it and nothing delivered to it; so for each right."""

from pathlib import Path

import pytest

from appliance.contracts.access import Rights
from appliance.queue import wire
from tests.unit.queue.desk import Desk
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import ALL, running
from tests.unit.queue.test_security import wait_until


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Mallory has every right, and will lose it; Alice stays."""
    made = Desk(tmp_path)
    made.hello("alice")
    made.grant("mallory", ALL)
    made.heard("mallory")
    return made


def faults(desk: Desk, name: str) -> list[str]:
    return [h.fault.code for h, _ in desk.heard(name) if isinstance(h, wire.Reply) and h.fault is not None]


def test_nothing_is_accepted_from_a_revoked_key_and_nothing_said_to_it(desk: Desk) -> None:
    desk.publish("mallory", wire.Item("a", "held"))
    desk.consume("mallory", "a")
    (held,) = desk.deliveries("mallory")
    desk.change("mallory", None)
    for header in (
        wire.Hello("again"),
        wire.Publish(1, (wire.Item("a", "forged"),)),
        wire.Consume(1, 1, "a", 1, (held.token,)),
        wire.Subscribe(1, 2, "*"),
        wire.Settle(1, (wire.Outcome(held.token, wire.DONE),)),
        wire.Move(1, held.token, wire.Item("a", "moved")),
        wire.Emit(1, "topic"),
        wire.Call(1, "queue.ping", 1.0),
        wire.Serve(1, "name"),
        wire.Heartbeat((held.token,)),
        wire.Bye(),
    ):
        desk.send("mallory", header, *[b""] * header.bodies)
    desk.engine.handle(b"mallory", "mallory", [b"not the protocol"])
    desk.turn()
    assert desk.heard("mallory") == []
    assert desk.engine._work.ledger.of("a").ready == 1


def test_its_subscriptions_to_work_and_to_events_have_ended(desk: Desk) -> None:
    desk.consume("mallory", "a", credit=5)
    assert desk.ask("mallory", wire.Subscribe(1, 6, "*")).statuses == (wire.STORED,)
    desk.heard("mallory")
    desk.change("mallory", None)
    desk.publish("alice", wire.Item("a", "secret"))
    desk.ask("alice", wire.Emit(1, "topic"), b"secret")
    assert desk.heard("mallory") == []
    desk.consume("alice", "a")
    assert [handed.attempt for handed in desk.deliveries("alice")] == [1]


@pytest.mark.parametrize("how", ["in this session", "in an earlier session", "before a restart of the broker"])
def test_what_it_has_in_hand_goes_to_another_at_once(desk: Desk, how: str) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("mallory", "a")
    (held,) = desk.deliveries("mallory")
    if how == "in an earlier session":
        desk.hello("mallory")
    elif how == "before a restart of the broker":
        entries = (desk.directory / "access.json").read_bytes()
        desk.restart()
        (desk.directory / "access.json").write_bytes(entries)
        desk.ring.reload()
        desk.hello("alice")
    desk.consume("alice", "a")
    assert desk.deliveries("alice") == []
    desk.change("mallory", None)
    (taken,) = desk.deliveries("alice")
    assert (taken.id, taken.attempt) == ("1", 2)
    desk.change("mallory", ALL)
    desk.hello("mallory")
    assert desk.settle("mallory", held.token) == wire.STALE
    assert desk.settle("alice", taken.token) == wire.STORED


def test_a_call_that_it_serves_is_lost_and_the_next_finds_nobody(desk: Desk) -> None:
    desk.ask("mallory", wire.Serve(1, "name"))
    desk.send("alice", wire.Call(2, "name", 60.0), b"")
    asked = next(h for h, _ in desk.heard("mallory") if isinstance(h, wire.Asked))
    desk.change("mallory", None)
    assert faults(desk, "alice") == ["call-server-lost"]
    desk.send("mallory", wire.Answer(asked.call), b"forged")
    assert desk.heard("alice") == []
    desk.send("alice", wire.Call(3, "name", 60.0), b"")
    assert faults(desk, "alice") == ["call-not-served"]
    assert desk.heard("mallory") == []


def test_the_answer_to_a_call_of_its_own_does_not_reach_it(desk: Desk) -> None:
    desk.ask("alice", wire.Serve(1, "name"))
    desk.send("mallory", wire.Call(2, "name", 60.0), b"")
    asked = next(h for h, _ in desk.heard("alice") if isinstance(h, wire.Asked))
    desk.change("mallory", None)
    desk.send("alice", wire.Answer(asked.call), b"secret")
    desk.clock.advance(61.0)
    desk.turn()
    assert desk.heard("mallory") == []


def test_a_key_with_fewer_rights_keeps_only_what_they_cover(desk: Desk) -> None:
    for name in ("keep", "lose"):
        desk.publish("alice", wire.Item(name, name))
        desk.ask("mallory", wire.Serve(1, f"{name}.serve"))
    desk.consume("mallory", "*", credit=5)
    held = {handed.id: handed.token for handed in desk.deliveries("mallory")}
    desk.ask("mallory", wire.Subscribe(1, 6, "*"))
    desk.heard("mallory")
    desk.change("mallory", Rights(consume=("keep*",), subscribe=("keep*",), serve=("keep.*",)))
    assert [h.code for h, _ in desk.heard("mallory") if isinstance(h, wire.Bye)] == ["session-unknown"]
    desk.publish("alice", wire.Item("lose", "lose-2"))
    desk.ask("alice", wire.Emit(1, "lose"), b"secret")
    desk.send("alice", wire.Call(2, "lose.serve", 60.0), b"")
    assert faults(desk, "alice") == ["call-not-served"]
    assert desk.heard("mallory") == []
    desk.hello("mallory")
    for refused in (wire.Consume(1, 5, "*", 1), wire.Subscribe(1, 6, "lose"), wire.Serve(1, "lose.serve")):
        assert desk.ask("mallory", refused).statuses == (wire.REFUSED,)
    assert desk.settle("mallory", held["lose"]) == wire.STALE
    assert desk.settle("mallory", held["keep"]) == wire.STORED


def test_a_key_with_more_rights_loses_nothing_but_its_session(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    desk.change("mallory", Rights(consume=("a",)))
    desk.hello("mallory")
    desk.consume("mallory", "a")
    (held,) = desk.deliveries("mallory")
    desk.change("mallory", Rights(consume=("a", "b")))
    desk.hello("mallory")
    assert desk.settle("mallory", held.token) == wire.STORED


def test_what_waits_for_a_peer_that_does_not_read_never_reaches_a_revoked_key() -> None:
    """More events than network and libzmq hold: the broker keeps the newest for who is slow, not for the revoked."""
    number = 3000
    with running(lease_s=60.0) as broker:
        broker.grant("bob", ALL)
        broker.grant("mallory", ALL)
        with (
            Peer(broker.connection()) as alice,
            Peer(broker.connection("bob"), high_water=1) as bob,
            Peer(broker.connection("mallory"), high_water=1) as mallory,
        ):
            for slow in (bob, mallory):
                slow.send(wire.Subscribe(1, 1, "topic"))
                slow.receive(wire.Results)
            for n in range(1, number + 1):
                alice.send(wire.Emit(n, "topic"), b"%08d" % n + b"x" * 2**14)
            while alice.receive(wire.Results)[0].request < number:
                pass
            broker.revoke("mallory")
            wait_until(lambda: "the key of mallory was revoked" in broker.log())
            alice.send(wire.Emit(number + 1, "topic"), b"%08d" % (number + 1))
            alice.receive(wire.Results)
            heard = [0]
            while heard[-1] <= number:
                heard.append(int(bob.receive(wire.Happened)[1][0][:8]))
            assert len(heard) < number  # or nothing would have waited
            while not mallory.hears_nothing(500):
                assert int(mallory.receive(wire.Happened)[1][0][:8]) < number

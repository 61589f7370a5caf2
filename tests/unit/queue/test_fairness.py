"""Handing out: neither a long queue, nor one that nobody takes from, nor a greedy consumer holds up the others."""

from collections import Counter
from pathlib import Path

import pytest

from appliance.queue import wire
from appliance.queue.dispatch import MAX_TURN
from appliance.queue.work import MAX_NOTED
from tests.unit.queue.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path, lease_s=1000.0)
    for name in ("alice", "bob"):
        desk.hello(name)
    return desk


def publish(desk: Desk, address: str, number: int) -> None:
    while number > 0:
        part = min(number, wire.MAX_ITEMS)
        items = tuple(wire.Item(address, f"{address}-{desk.published + n}") for n in range(part))
        assert set(desk.ask("alice", wire.Publish(1, items), *[b""] * part).statuses) == {wire.STORED}
        desk.published += part
        number -= part


@pytest.mark.parametrize("small", ["a.small", "z.small"])
def test_a_long_queue_does_not_keep_its_consumer_from_a_short_one(desk: Desk, small: str) -> None:
    publish(desk, "hog", 500)
    desk.consume("bob", "*", credit=4)
    held = desk.deliveries("bob")
    assert {handed.address for handed in held} == {"hog"}
    publish(desk, small, 1)
    seen = []
    for _ in range(3):
        desk.settle("bob", held.pop(0).token)
        got = desk.deliveries("bob")
        seen += [handed.address for handed in got]
        held += got
    assert small in seen
    assert "hog" in seen


def test_addresses_take_turns_and_so_do_consumers(desk: Desk) -> None:
    desk.consume("bob", "*", credit=1)
    for address in ("a", "b", "c"):
        publish(desk, address, 50)
    seen: Counter[str] = Counter()
    for _ in range(30):
        (handed,) = desk.deliveries("bob")
        seen[handed.address] += 1
        desk.settle("bob", handed.token)
    assert max(seen.values()) - min(seen.values()) <= 2
    assert len(seen) == 3
    desk.send("bob", wire.Cancel(5))
    desk.heard("bob")
    got: Counter[str] = Counter()
    for name in ("alice", "bob"):
        desk.consume(name, "trickle", credit=100)
    for _ in range(20):
        publish(desk, "trickle", 1)
        for name in ("alice", "bob"):
            got[name] += len(desk.deliveries(name))
    assert got == {"alice": 10, "bob": 10}


def test_a_turn_is_bounded_and_the_next_one_goes_on_at_once(desk: Desk) -> None:
    publish(desk, "hog", MAX_TURN + 3000)
    publish(desk, "small", 1)
    for subscription in range(4):
        desk.engine.handle(b"bob", "bob", wire.to_broker(wire.Consume(2, subscription, "hog", wire.MAX_CREDIT)))
    desk.engine.handle(b"alice", "alice", wire.to_broker(wire.Consume(2, 9, "small", 1)))
    desk.turn()
    assert [handed.address for handed in desk.deliveries("alice")] == ["small"]
    first = desk.deliveries("bob")
    assert MAX_TURN - 1 <= len(first) <= MAX_TURN
    assert desk.engine.next_time() == 0.0
    desk.turn()
    rest = desk.deliveries("bob")
    assert len({handed.id for handed in first + rest}) == MAX_TURN + 3000


def test_many_addresses_that_nobody_takes_from_cost_a_turn_nothing(desk: Desk) -> None:
    for n in range(3000):
        header = wire.Publish(n, (wire.Item(f"nobody.{n}", str(n)),))
        desk.engine.handle(b"alice", "alice", wire.to_broker(header, [b""]))
    desk.turn()
    dispatch = desk.engine._work.dispatch
    assert not dispatch._rounds
    assert not dispatch._changed
    desk.consume("bob", "nobody.*", credit=10)
    for _ in range(100):
        for handed in desk.deliveries("bob"):
            desk.settle("bob", handed.token)
    assert desk.engine._work.dispatch.left_over is False
    total = sum(counts.done_total for counts in desk.engine._work.ledger.counts.values())
    assert total >= 100


def test_a_key_that_is_held_up_does_not_hold_up_its_address(desk: Desk) -> None:
    for n in range(50):
        desk.publish("alice", wire.Item("a", f"held-{n}", key="held"))
    desk.publish("alice", wire.Item("a", "free"))
    desk.publish("alice", wire.Item("a", "other", key="other"))
    desk.consume("bob", "a", credit=10)
    assert [handed.id for handed in desk.deliveries("bob")] == ["held-0", "free", "other"]


def test_a_turn_that_has_taken_in_enough_is_run_before_more(desk: Desk) -> None:
    items = tuple(wire.Item("a", str(n)) for n in range(wire.MAX_ITEMS))
    taken_in = 0
    while not desk.engine.laden:
        desk.engine.handle(b"alice", "alice", wire.to_broker(wire.Publish(1, items), [b""] * len(items)))
        taken_in += len(items)
    assert taken_in == MAX_NOTED
    desk.turn()
    assert not desk.engine.laden

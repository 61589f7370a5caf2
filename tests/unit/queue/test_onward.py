"""Messages for another cluster, as long as they are here."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from appliance.contracts.access import Access, AccessList, Rights
from appliance.queue import onward, wire
from appliance.queue.sessions import MAX_HAND_BYTES, SHARE
from tests.unit.queue.desk import Desk, temporary_directory

EVERYWHERE = ("*", "*/*/*")


class BorderDesk(Desk):
    """A broker of lan/main with a route to lan/b; `alice` publishes, `one` and `two` speak as the bridge."""

    def start(self, store: object = None) -> None:
        super().start()
        rights = Rights(publish=EVERYWHERE, consume=EVERYWHERE, relay=("lan/c/*",))
        entries = [Access(name=name, public_key=name, rights=rights) for name in ("alice", "carol")]
        entries += [Access(name="bridge", public_key=key, rights=rights) for key in ("one", "two")]
        listed = AccessList(entries=tuple(entries), routes=("lan/b",))
        (self.directory / "access.json").write_bytes(msgspec.json.encode(listed))
        self.ring.reload()
        for name in ("alice", "carol", "one", "two"):
            self.hello(name)
            self.heard(name)

    def fill(self, count: int, address: str = "lan/b/orders", body: bytes = b"") -> None:
        """Publish messages with the ids 0, 1, 2, …"""
        for n in range(count):
            assert self.publish("alice", wire.Item(address, f"{address}-{n}"), body) == wire.STORED

    def numbers(self, name: str) -> list[int]:
        """Return and forget what `name` was handed."""
        return [int(handed.id.rpartition("-")[2]) for handed in self.deliveries(name)]


@pytest.fixture
def desk() -> Iterator[BorderDesk]:
    with temporary_directory() as directory:
        desk = BorderDesk(Path(directory), lease_s=10.0, max_attempts=1)
        yield desk
        desk.store.close()


def test_later_messages_wait_until_lost_hands_have_lost_the_earlier(desk: BorderDesk) -> None:
    desk.fill(4)
    desk.consume("one", "lan/b/*", credit=2 * SHARE)
    assert desk.numbers("one") == [0, 1]
    desk.consume("two", "lan/b/*", credit=8 * SHARE)
    assert desk.numbers("two") == []
    for _ in range(11):
        desk.clock.advance(1.0)
        desk.send("two", wire.Heartbeat())
    assert desk.numbers("two") == [0, 1, 2, 3], "a lapse costs no time and no attempt"


def test_later_messages_wait_for_leases_from_before_a_restart(desk: BorderDesk) -> None:
    desk.fill(4)
    desk.consume("one", "lan/b/*", credit=2 * SHARE)
    held = tuple(handed.token for handed in desk.deliveries("one"))
    desk.restart()
    desk.consume("two", "lan/b/*", credit=8 * SHARE)
    assert desk.numbers("two") == []
    desk.consume("one", "lan/b/*", credit=8 * SHARE, held=held)
    assert desk.numbers("one") == [2, 3], "who still has the earlier ones in hand may have the later"


def test_messages_that_are_given_back_come_again_before_later_ones(desk: BorderDesk) -> None:
    desk.fill(4)
    desk.consume("one", "lan/b/*", credit=2 * SHARE)
    first, second = (handed.token for handed in desk.deliveries("one"))
    given = (wire.Outcome(second, wire.RELEASE, 60.0), wire.Outcome(first, wire.RETRY, 60.0))
    assert desk.ask("one", wire.Settle(3, given)).statuses == (wire.STORED, wire.STORED)
    assert desk.numbers("one") == [0, 1], "and no delay holds them up"


def test_one_address_has_a_share_of_the_credit(desk: BorderDesk) -> None:
    desk.fill(10)
    desk.fill(1, "lan/b/other")
    desk.consume("one", "lan/b/*", credit=4 * SHARE)
    assert [handed.address for handed in desk.deliveries("one")] == ["lan/b/orders"] * 4 + ["lan/b/other"]


def test_a_consumer_that_has_many_bytes_in_hand_gets_no_more(desk: BorderDesk) -> None:
    size = 2**20
    fits = MAX_HAND_BYTES // size + 1
    desk.fill(fits + 8, "here", bytes(size))
    desk.consume("one", "here", credit=1000)
    for _ in range(fits):
        desk.turn()
    taken = desk.deliveries("one")
    assert fits <= len(taken) < fits + 8
    desk.settle("one", taken[0].token)
    assert desk.deliveries("one") == []
    for handed in taken[1:]:
        desk.settle("one", handed.token)
    assert len(taken) + len(desk.deliveries("one")) == fits + 8


def test_what_a_message_has_is_handed_to_the_bridge_and_not_in_force_here(desk: BorderDesk) -> None:
    item = wire.Item(
        "lan/b/orders", "1", delay_s=60.0, expires_s=100.0, max_attempts=3, key="k", origin="lan/c/x", way=("lan/c",)
    )
    later = wire.Item("lan/b/orders", "2", not_before=desk.clock.wall() + 90.0, key="k")
    for each in (item, later):
        assert desk.publish("alice", each) == wire.STORED
    desk.clock.advance(15.0)
    desk.hello("one")
    desk.consume("one", "lan/b/*", credit=100)
    first, second = desk.deliveries("one")
    assert (first.origin, first.onward) == ("lan/c/x", wire.Onward(("lan/c",), 45.0, 85.0, 3, "k"))
    assert second.onward == wire.Onward((), 75.0, None, None, "k")


def test_a_message_expires_here_while_it_waits(desk: BorderDesk) -> None:
    assert desk.publish("alice", wire.Item("lan/b/orders", "1", expires_s=5.0)) == wire.STORED
    desk.clock.advance(5.0)
    desk.turn()
    assert desk.engine.next_time() >= 0
    desk.hello("one")
    desk.consume("one", "lan/b/*")
    assert desk.deliveries("one") == []


def test_what_found_no_room_is_overtaken_by_nothing_of_the_same_request() -> None:
    with temporary_directory() as directory:
        limits = [{"pattern": "small", "max_bytes": 100}]
        desk = BorderDesk(Path(directory), limits=limits)
        items = tuple(wire.Item(address, f"{address}-{n}") for n in range(3) for address in ("small", "large"))
        bodies = [bytes(60)] * 2 + [bytes(60)] * 2 + [bytes(10)] * 2
        results = desk.ask("alice", wire.Publish(1, items), *bodies)
        assert results.statuses == (
            wire.STORED, wire.STORED, wire.BUSY, wire.STORED, wire.BUSY, wire.STORED,
        )  # fmt: skip
        desk.store.close()


def test_an_answer_that_is_moved_out_is_the_movers_own(desk: BorderDesk) -> None:
    question = wire.Item("questions", "1", origin="lan/c/x", way=("lan/c",))
    assert desk.publish("alice", question) == wire.STORED
    desk.consume("carol", "questions")
    [handed] = desk.deliveries("carol")
    move = wire.Move(4, handed.token, wire.Item("lan/b/answers", "1"))
    assert desk.ask("carol", move, b"").statuses == (wire.STORED,)
    assert desk.ask("carol", move, b"").statuses == (wire.DUPLICATE,)
    desk.consume("one", "lan/b/*")
    assert [handed.origin for handed in desk.deliveries("one")] == ["carol"]


def test_a_way_may_have_so_many_clusters_and_no_more(desk: BorderDesk) -> None:
    for hops, status in ((onward.MAX_HOPS, wire.STORED), (onward.MAX_HOPS + 1, wire.REFUSED)):
        way = tuple(f"lan/x{n}" for n in range(hops))
        assert desk.publish("alice", wire.Item("orders", f"{hops}", origin="lan/c/x", way=way)) == status

"""Limits per address pattern: depth, bytes and rate; publishers hear *busy*, and when to come again."""

from pathlib import Path

import pytest

from appliance.queue import wire
from appliance.queue.rate import MOST_NAMES, Rate
from appliance.queue.sessions import MAX_ASKED
from tests.unit.queue.desk import Desk


def desk_with(tmp_path: Path, *limits: dict[str, object], **settings: object) -> Desk:
    desk = Desk(tmp_path, limits=limits, **settings)
    desk.hello("alice")
    return desk


def answers(desk: Desk, address: str, number: int, size: int = 1) -> wire.Results:
    """Publish that many items at once and return what became of them."""
    items = tuple(wire.Item(address, f"{desk.published + n}") for n in range(number))
    desk.published += number
    return desk.ask("alice", wire.Publish(1, items), *[b"x" * size] * number)


@pytest.mark.parametrize(("limit", "stored"), [({"max_depth": 2}, 2), ({"max_bytes": 35}, 3)])
def test_an_address_at_its_limit_is_busy_until_something_is_done(
    tmp_path: Path, limit: dict[str, object], stored: int
) -> None:
    desk = desk_with(tmp_path, {"pattern": "small.*", **limit})
    results = answers(desk, "small.a", 4, size=10)
    assert results.statuses == (wire.STORED,) * stored + (wire.BUSY,) * (4 - stored)
    assert all(trouble.retry_after_s > 0 for trouble in results.troubles)
    assert answers(desk, "small.b", 1, size=10).statuses == (wire.STORED,)  # each address has its own
    assert answers(desk, "large", 4, size=10).statuses == (wire.STORED,) * 4
    desk.consume("alice", "small.a")
    (handed,) = desk.deliveries("alice")
    assert answers(desk, "small.a", 1, size=10).statuses == (wire.BUSY,)  # a lease takes room too
    desk.settle("alice", handed.token)
    assert answers(desk, "small.a", 1, size=10).statuses == (wire.STORED,)


S, B, R = wire.STORED, wire.BUSY, wire.REFUSED


@pytest.mark.parametrize(
    ("wanted", "statuses"),
    [
        (["deep"] * 4, (S, S, B, B)),
        (["deep", "lan/main/deep", "deep", "free", "lan/main/deep", "free"], (S, S, B, S, B, S)),
        (["free", "no such", "free", "lan/far/x", "free"], (S, R, S, R, S)),
        (["heavy 6", "heavy 6", "heavy 1", "lan/main/heavy 1", "free 6"], (S, B, B, B, S)),
        (["free 60", "free 50", "free 1", "lan/main/free 1", "deep 1", "deep 1", "deep 1"], (S, B, B, B, S, S, B)),
        (["slow", "slow", "free", "slow"], (S, B, S, B)),
    ],
    ids=["depth", "spellings", "refusals", "bytes", "bytes in all", "rate"],
)
def test_items_of_one_request_each_meet_the_limits_and_none_overtakes(
    tmp_path: Path, wanted: list[str], statuses: tuple[int, ...]
) -> None:
    desk = desk_with(
        tmp_path, {"pattern": "deep", "max_depth": 2}, {"pattern": "heavy", "max_bytes": 10},
        {"pattern": "slow", "rate": 1.0}, max_bytes=100,
    )  # fmt: skip
    names = [each if each == "no such" else each.partition(" ")[0] for each in wanted]
    sizes = [int(each.rpartition(" ")[2]) if each[-1].isdigit() else 1 for each in wanted]
    items = tuple(wire.Item(name, str(n)) for n, name in enumerate(names))
    assert desk.ask("alice", wire.Publish(1, items), *(b"x" * size for size in sizes)).statuses == statuses
    ledger = desk.engine._work.ledger
    stored = [n for n, status in enumerate(statuses) if status == S]
    assert sum(counts.ready for counts in ledger.counts.values()) == len(stored)
    assert ledger.bytes == sum(counts.bytes for counts in ledger.counts.values()) == sum(sizes[n] for n in stored)
    desk.restart()
    assert desk.engine._work.ledger.counts == {a: c for a, c in ledger.counts.items() if c.ready}


@pytest.mark.parametrize(("limit", "settings"), [({"max_bytes": 35}, {}), ({"max_depth": 9}, {"max_bytes": 35})])
def test_a_body_that_never_fits_is_refused_for_good_and_holds_nothing_up(
    tmp_path: Path, limit: dict[str, object], settings: dict[str, object]
) -> None:
    desk = desk_with(tmp_path, {"pattern": "small.*", **limit}, **settings)
    assert answers(desk, "small.a", 1, size=20).statuses == (wire.STORED,)
    items = tuple(wire.Item("small.a", name) for name in ("large", "small", "later"))
    results = desk.ask("alice", wire.Publish(1, items), b"x" * 36, b"x" * 15, b"x")
    assert results.statuses == (wire.REFUSED, wire.STORED, wire.BUSY)
    fault = results.troubles[0].fault
    assert (fault.code, fault.status, results.troubles[0].retry_after_s) == ("body-too-large", 413, 0.0)
    assert "36 bytes" in fault.message
    assert "at most 35" in fault.message
    assert fault.hint
    assert answers(desk, "large", 1, size=36).statuses == ((wire.REFUSED,) if settings else (wire.STORED,))


def test_a_move_that_never_fits_is_refused_and_the_delivery_stays_in_hand(tmp_path: Path) -> None:
    desk = desk_with(tmp_path, {"pattern": "small", "max_bytes": 35})
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    results = desk.ask("alice", wire.Move(4, handed.token, wire.Item("small", "2")), b"x" * 36)
    assert (results.statuses, results.troubles[0].fault.code) == ((wire.REFUSED,), "body-too-large")
    assert desk.settle("alice", handed.token, wire.REJECT) == wire.STORED


def test_the_first_pattern_that_matches_holds_and_the_rest_is_as_without(tmp_path: Path) -> None:
    desk = desk_with(tmp_path, {"pattern": "a.b", "max_depth": 3}, {"pattern": "a.*", "max_depth": 1}, max_depth=2)
    assert answers(desk, "a.b", 4).statuses.count(wire.STORED) == 3
    assert answers(desk, "a.c", 4).statuses.count(wire.STORED) == 1
    assert answers(desk, "z", 4).statuses.count(wire.STORED) == 2


@pytest.mark.parametrize(("rate", "burst"), [(4.0, 4), (0.5, 1)])
def test_a_rate_gives_a_second_s_worth_at_once_and_says_when_the_next_goes(
    tmp_path: Path, rate: float, burst: int
) -> None:
    desk = desk_with(tmp_path, {"pattern": "*", "rate": rate})
    results = answers(desk, "a", burst + 1)
    assert results.statuses == (wire.STORED,) * burst + (wire.BUSY,)
    (trouble,) = results.troubles
    assert trouble.retry_after_s == pytest.approx(1 / rate)
    assert trouble.fault.code == "queue-busy"
    desk.clock.advance(trouble.retry_after_s * 0.9)
    assert answers(desk, "a", 1).statuses == (wire.BUSY,)
    desk.clock.advance(trouble.retry_after_s * 0.1)
    assert answers(desk, "a", 2).statuses == (wire.STORED, wire.BUSY)
    desk.clock.advance(3600.0)
    assert answers(desk, "a", burst + 1).statuses == (wire.STORED,) * burst + (wire.BUSY,)


def test_the_rate_of_many_names_is_forgotten_only_where_the_bucket_is_full_again() -> None:
    rate = Rate()
    assert rate.wait_s("kept", 1e-6, 0.0) == 0.0
    for number in range(MOST_NAMES + 10):
        assert rate.wait_s(str(number), 1000.0, 1.0 + number) == 0.0
    assert len(rate._full_at) <= MOST_NAMES
    assert rate.wait_s("kept", 1e-6, 30_000.0) > 0


def test_a_session_has_so_many_subscriptions_and_names_and_no_more(tmp_path: Path) -> None:
    desk = desk_with(tmp_path)
    for number in range(MAX_ASKED // 2):
        assert desk.ask("alice", wire.Consume(1, 2 * number, "a", 1)).statuses == (wire.STORED,)
        assert desk.ask("alice", wire.Subscribe(1, 2 * number + 1, "b")).statuses == (wire.STORED,)
    for one_more in (wire.Consume(1, 5000, "a", 1), wire.Subscribe(1, 5000, "b"), wire.Serve(1, "c")):
        assert desk.ask("alice", one_more).statuses == (wire.REFUSED,)
    for same in (wire.Consume(1, 0, "a2", 1), wire.Subscribe(1, 1, "b2")):
        assert desk.ask("alice", same).statuses == (wire.STORED,), "it takes the place of the former one"
    desk.send("alice", wire.Cancel(0))
    for _ in range(2):
        assert desk.ask("alice", wire.Serve(1, "c")).statuses == (wire.STORED,)
    assert desk.ask("alice", wire.Subscribe(1, 5000, "b")).statuses == (wire.REFUSED,)

"""The clock rules: leases and delays on broker time, not-before and expiry on the wall clock."""

from pathlib import Path

import pytest

from appliance.queue import wire
from tests.unit.queue.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path, lease_s=10.0, heartbeat_s=2.0)
    desk.hello("alice")
    return desk


def pass_time(desk: Desk, seconds: float, *names: str) -> None:
    """Let time pass in small steps, as it does, with heartbeats of these clients that hold nothing."""
    while seconds > 0:
        step = min(1.0, seconds)
        desk.clock.advance(step)
        seconds -= step
        for name in names:
            desk.send(name, wire.Heartbeat())
        desk.turn()


def test_a_delay_is_not_shortened_by_a_restart(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1", delay_s=10.0))
    pass_time(desk, 6.0, "alice")
    desk.clock.advance(3600.0)  # the machine is down; nobody looks
    desk.restart()
    desk.hello("bob")
    desk.consume("bob", "a")
    pass_time(desk, 3.9, "bob")
    assert desk.deliveries("bob") == []
    pass_time(desk, 6.2, "bob")
    assert [d.id for d in desk.deliveries("bob")] == ["1"]


def test_a_restart_amid_much_work_makes_a_delay_longer_by_a_second_at_most(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1", delay_s=10.0))
    for number in range(49):
        desk.clock.advance(0.1)
        desk.publish("alice", wire.Item("b", f"b-{number}"))
    desk.restart()
    desk.hello("bob")
    desk.consume("bob", "a")
    pass_time(desk, 5.0, "bob")
    assert desk.deliveries("bob") == []
    pass_time(desk, 1.1, "bob")
    assert [d.id for d in desk.deliveries("bob")] == ["1"]


def test_a_delay_does_not_care_for_the_wall_clock(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1", delay_s=10.0))
    desk.consume("alice", "a")
    desk.clock.unix += 86400
    pass_time(desk, 9.0, "alice")
    assert desk.deliveries("alice") == []
    desk.clock.unix -= 2 * 86400
    pass_time(desk, 1.5, "alice")
    assert [d.id for d in desk.deliveries("alice")] == ["1"]


def test_not_before_and_expiry_follow_the_wall_clock(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "at", not_before=desk.clock.unix + 3600))
    desk.publish("alice", wire.Item("b", "until", expires_s=3600))
    desk.consume("alice", "a")
    pass_time(desk, 5.0, "alice")
    assert desk.deliveries("alice") == []
    desk.clock.unix += 3600
    pass_time(desk, 1.0, "alice")
    assert [d.id for d in desk.deliveries("alice")] == ["at"]
    desk.consume("alice", "b")
    pass_time(desk, 1.0, "alice")
    assert desk.deliveries("alice") == []
    assert desk.engine._work.ledger.of("b").expired_total == 1


def test_an_item_that_expires_while_it_is_delayed_again_does_expire(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1", expires_s=5.0))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    desk.settle("alice", handed.token, wire.RETRY, 2.0)
    pass_time(desk, 1.0, "alice")
    desk.clock.unix += 10
    pass_time(desk, 3.0, "alice")
    assert desk.deliveries("alice") == []
    assert desk.engine._work.ledger.of("a").expired_total == 1


def test_a_lease_has_its_full_time_again_after_a_restart(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    pass_time(desk, 9.0, "alice")
    desk.restart()
    desk.hello("bob")
    desk.consume("bob", "a")
    pass_time(desk, 9.0, "bob")
    assert desk.deliveries("bob") == []
    pass_time(desk, 1.5, "bob")
    (again,) = desk.deliveries("bob")
    assert (again.attempt, again.token[1] > handed.token[1]) == (2, True)


def test_a_done_after_a_restart_is_taken_while_the_lease_runs_and_refused_once_it_lapsed(desk: Desk) -> None:
    for name in ("1", "2"):
        desk.publish("alice", wire.Item("a", name))
    desk.consume("alice", "a", credit=2)
    one, two = desk.deliveries("alice")
    desk.restart()
    desk.hello("alice")
    assert desk.settle("alice", one.token) == wire.STORED
    pass_time(desk, 11.0, "alice")
    assert desk.settle("alice", two.token) == wire.STALE


def test_heartbeats_extend_only_the_leases_they_name(desk: Desk) -> None:
    for name in ("1", "2"):
        desk.publish("alice", wire.Item("a", name))
    desk.consume("alice", "a", credit=2)
    one, _two = desk.deliveries("alice")
    for _ in range(12):
        desk.clock.advance(1.0)
        desk.send("alice", wire.Heartbeat((one.token,)))
    assert [d.id for d in desk.deliveries("alice")] == ["2"]
    assert desk.settle("alice", one.token) == wire.STORED


def test_a_broker_that_stood_still_gives_the_time_back(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    desk.clock.advance(100.0)
    desk.turn()
    assert desk.deliveries("alice") == []
    assert desk.settle("alice", handed.token) == wire.STORED


def test_held_leases_count_against_the_credit_of_the_next_session(desk: Desk) -> None:
    for name in ("1", "2", "3"):
        desk.publish("alice", wire.Item("a", name))
    desk.consume("alice", "a", credit=2)
    one, two = desk.deliveries("alice")
    desk.restart()
    desk.hello("alice")
    desk.consume("alice", "a", 2, (one.token, two.token))
    assert desk.deliveries("alice") == []
    desk.settle("alice", one.token)
    assert [d.id for d in desk.deliveries("alice")] == ["3"]


@pytest.mark.parametrize("outcome", [wire.DONE, wire.RETRY, wire.REJECT, wire.RELEASE])
@pytest.mark.parametrize("attempts", [1, 2])
def test_a_token_is_worth_nothing_from_the_lapse_on(desk: Desk, outcome: int, attempts: int) -> None:
    desk.publish("alice", wire.Item("a", "1", max_attempts=attempts))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    desk.send("alice", wire.Cancel(5))
    pass_time(desk, 11.0, "alice")
    counts = desk.engine._work.ledger.of("a")
    assert (counts.ready, counts.dead, counts.leased) == ((1, 0, 0) if attempts == 2 else (0, 1, 0))
    assert desk.settle("alice", handed.token, outcome) == wire.STALE


@pytest.mark.parametrize(("chance", "waits"), [(0.0, [0.5, 1.0, 2.0, 4.0, 4.0]), (1.0, [1.0, 2.0, 4.0, 8.0, 8.0])])
def test_a_retry_without_a_delay_backs_off_exponentially_up_to_the_cap(
    tmp_path: Path, chance: float, waits: list[float]
) -> None:
    desk = Desk(tmp_path, retry_first_s=1.0, retry_most_s=8.0)
    desk.chance = chance
    desk.hello("alice")
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    for attempt, wait_s in enumerate(waits, start=2):
        desk.settle("alice", handed.token, wire.RETRY, None)
        assert desk.deliveries("alice") == []
        pass_time(desk, wait_s - 0.01, "alice")
        assert desk.deliveries("alice") == []
        pass_time(desk, 0.01, "alice")
        (handed,) = desk.deliveries("alice")
        assert handed.attempt == attempt


@pytest.mark.parametrize("outcome", [wire.RETRY, wire.RELEASE])
def test_a_delay_that_the_consumer_names_is_the_one(desk: Desk, outcome: int) -> None:
    desk.chance = 1.0
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("alice", "a")
    for delay_s in (0.0, 3.0):
        (handed,) = desk.deliveries("alice")
        desk.settle("alice", handed.token, outcome, delay_s)
        pass_time(desk, max(0.0, delay_s - 0.01), "alice")
        if delay_s:
            assert desk.deliveries("alice") == []
        pass_time(desk, 0.01, "alice")
    (handed,) = desk.deliveries("alice")
    assert handed.attempt == (3 if outcome == wire.RETRY else 1)


def test_a_release_is_offered_again_at_once(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    desk.settle("alice", handed.token, wire.RELEASE, None)
    (again,) = desk.deliveries("alice")
    assert (again.attempt, again.token[1] > handed.token[1]) == (1, True)


def test_the_first_lapse_goes_on_at_once_and_a_later_one_backs_off(desk: Desk) -> None:
    desk.chance = 1.0
    desk.hello("bob")
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("alice", "a")
    for wait_s in (0.0, 1.0, 2.0):
        (_forgotten,) = desk.deliveries("alice")
        pass_time(desk, 10.0, "alice")
        pass_time(desk, max(0.0, wait_s - 0.01), "alice")
        if wait_s:
            assert desk.deliveries("alice") == []
            pass_time(desk, 0.01, "alice")


def test_a_backoff_is_not_shortened_by_a_restart(desk: Desk) -> None:
    desk.chance = 1.0
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    desk.settle("alice", handed.token, wire.RETRY, None)
    desk.clock.advance(3600.0)
    desk.restart()
    desk.hello("bob")
    desk.consume("bob", "a")
    assert desk.deliveries("bob") == []
    pass_time(desk, 1.0, "bob")
    assert [handed.attempt for handed in desk.deliveries("bob")] == [2]


def test_an_item_that_expires_in_a_consumer_s_hands_may_still_be_done(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1", expires_s=5.0))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    for _ in range(12):
        desk.clock.advance(1.0)
        desk.send("alice", wire.Heartbeat((handed.token,)))
    assert desk.settle("alice", handed.token) == wire.STORED
    counts = desk.engine._work.ledger.of("a")
    assert (counts.done_total, counts.expired_total) == (1, 0)


@pytest.mark.parametrize("ending", ["retry", "release", "lapse", "leave", "restart"])
def test_an_item_that_comes_back_after_its_time_has_expired(desk: Desk, ending: str) -> None:
    desk.publish("alice", wire.Item("a", "1", expires_s=5.0))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    pass_time(desk, 6.0, "alice")
    if ending in {"retry", "release"}:
        outcome = wire.RETRY if ending == "retry" else wire.RELEASE
        assert desk.settle("alice", handed.token, outcome) == wire.STORED
    elif ending == "leave":
        desk.send("alice", wire.Bye())
    elif ending == "restart":
        desk.restart()
        desk.hello("bob")
        pass_time(desk, 11.0, "bob")
    else:
        pass_time(desk, 11.0, "alice")
    counts = desk.engine._work.ledger.of("a")
    assert (counts.ready, counts.leased, counts.expired_total) == (0, 0, 1)
    desk.hello("bob")
    desk.consume("bob", "a")
    assert desk.deliveries("bob") == []

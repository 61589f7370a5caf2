"""When a server is up or down, what it costs, and when that is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.arhav.tracker import Announcer, Rules, Tracker, order_of
from appliance.contracts.order import Rank

RULES = Rules(rise=2, fall=3, silence_s=1.5, penalty_s=1.0, decay_s=10.0)
INTERVAL_S = 0.25
DEADLINE_S = 0.75


def up(name: str = "arsrv-1", *, rtt_s: float = 0.01, pending: int = 0) -> Tracker:
    tracker = Tracker(name, RULES)
    for number in range(RULES.rise):
        tracker.answered(number * INTERVAL_S, rtt_s, pending)
    return tracker


def test_a_server_is_up_after_answering_often_enough_in_a_row() -> None:
    tracker = Tracker("arsrv-1", RULES)
    seen = [tracker.presence]
    for number, ok in enumerate((True, False, True, True)):
        tracker.answered(number, 0.01, 0) if ok else tracker.missed(number, 0.01)
        seen.append(tracker.presence)
    assert seen == ["down", "down", "down", "down", "up"]


def test_a_single_miss_after_a_recent_answer_is_forgiven() -> None:
    tracker = up()
    tracker.missed(1.0, 0.75)
    assert tracker.presence == "up"


@pytest.mark.parametrize("waited_s", [0.0, DEADLINE_S])
def test_a_server_that_dies_is_down_within_two_seconds(waited_s: float) -> None:
    tracker, died_at = up(), INTERVAL_S
    now = died_at
    while tracker.presence == "up":
        now += max(INTERVAL_S, waited_s)
        tracker.missed(now, waited_s)
    assert now - died_at <= 2.0


def test_a_slow_answer_counts_at_once_and_fades_with_time() -> None:
    tracker = up(rtt_s=0.01)
    tracker.answered(1, 0.5, 0)
    assert tracker.rank().rtt_s == 0.5
    tracker.answered(1.25, 0.01, 0)
    assert 0.4 < tracker.rank().rtt_s < 0.5
    tracker.answered(100, 0.01, 0)
    assert tracker.rank().rtt_s == pytest.approx(0.01, abs=1e-3)


def test_an_error_that_comes_fast_counts_as_slow() -> None:
    tracker = up(rtt_s=0.01)
    tracker.missed(1, 0.0001)
    assert tracker.rank().rtt_s == RULES.penalty_s


def test_work_in_hand_makes_a_server_dearer() -> None:
    assert [rank.name for rank in order_of([up("a", pending=9), up("b", pending=1), up("c", pending=3)])] == [
        "b",
        "c",
        "a",
    ]


def test_who_is_down_comes_last_however_fast_it_was() -> None:
    fast = up("fast", rtt_s=0.001)
    for number in range(RULES.fall):
        fast.missed(1.0 + number * INTERVAL_S, 0)
    for number in range(200):
        fast.answered(100.0 + number * 100, 0.001, 0) if number % 2 else fast.missed(100.0 + number * 100, 0)
    assert [(rank.name, rank.presence) for rank in order_of([fast, up("slow", rtt_s=0.7)])] == [
        ("slow", "up"),
        ("fast", "down"),
    ]


PROBES = st.lists(st.tuples(st.booleans(), st.floats(0, 5), st.floats(0, 3), st.integers(0, 1000)), max_size=80)


@given(PROBES)
def test_presence_follows_from_the_last_probes_alone(probes: list[tuple[bool, float, float, int]]) -> None:
    tracker, now = Tracker("x", RULES), 0.0
    outcomes: list[bool] = []
    for ok, wait_s, took_s, pending in probes:
        now += wait_s
        tracker.answered(now, took_s, pending) if ok else tracker.missed(now, took_s)
        outcomes.append(ok)
        if outcomes[-RULES.rise :] == [True] * RULES.rise:
            assert tracker.presence == "up"
        if outcomes[-RULES.fall :] == [False] * RULES.fall or True not in outcomes:
            assert tracker.presence == "down"


@given(PROBES)
def test_the_round_trip_time_stays_between_the_best_and_the_worst_seen(
    probes: list[tuple[bool, float, float, int]],
) -> None:
    tracker, now, seen = Tracker("x", RULES), 0.0, []
    for ok, wait_s, took_s, pending in probes:
        now += wait_s
        tracker.answered(now, took_s, pending) if ok else tracker.missed(now, took_s)
        seen.append(took_s if ok else max(took_s, RULES.penalty_s))
        rank = tracker.rank()
        assert min(seen) - 1e-9 <= rank.rtt_s <= max(seen) + 1e-9
        assert rank.rtt_s >= seen[-1] - 1e-9, "a peak counts at once"
        assert rank.cost == pytest.approx(rank.rtt_s * (rank.pending + 1))


def rank(name: str, presence: str = "up", cost: float = 0.1) -> Rank:
    return Rank(name=name, presence="up" if presence == "up" else "down", rtt_s=cost, cost=cost, pending=0)


def test_the_order_is_said_at_first_at_a_change_and_every_so_often() -> None:
    announcer = Announcer(every_s=2.0)
    assert announcer.is_due(0, ())
    assert not announcer.is_due(0.5, ())
    assert announcer.is_due(0.6, (rank("a"),)), "somebody came"
    assert not announcer.is_due(1.0, (rank("a", cost=0.2),)), "a new cost can wait"
    assert announcer.is_due(1.1, (rank("a", "down"),)), "somebody is down"
    assert not announcer.is_due(3.0, (rank("a", "down"),))
    assert announcer.is_due(3.2, (rank("a", "down"),)), "the time is over"

"""What wakes the supervisor."""

import asyncio

import pytest

from appliance.supervisor.events import (
    BURST_S,
    LONGEST_REST_S,
    MOST_CAUSES,
    SHARE,
    Pace,
    Wake,
    look_again_s,
)


def test_causes_are_gathered_while_nobody_waits_and_taken_once() -> None:
    async def work() -> None:
        wake = Wake()
        wake("a link went")
        wake("a link went")
        wake("a rule changed")
        assert await wake.wait(5) == "a link went; a rule changed"
        assert await wake.wait(0.001) == "timer"

    asyncio.run(work())


def test_a_storm_of_causes_is_one_short_line() -> None:
    async def work() -> None:
        wake = Wake()
        for number in range(1000):
            wake(f"event {number}")
        assert (await wake.wait(5)).endswith(f"and {1000 - MOST_CAUSES} more")

    asyncio.run(work())


def test_a_single_repair_is_followed_by_no_rest() -> None:
    pace = Pace(now=100.0)
    assert [pace.rest_s(100.0 + number, worked_s=0.05) for number in range(20)] == [0.0] * 20


def test_in_a_storm_the_work_is_a_share_of_the_time() -> None:
    pace, now, worked = Pace(now=0.0), 0.0, 0.0
    while now < 1000.0:
        worked += 0.2
        now += 0.2 + pace.rest_s(now + 0.2, worked_s=0.2)
    assert worked <= BURST_S + SHARE * now + 0.2
    assert worked >= 0.9 * SHARE * now


def test_no_rest_is_longer_than_the_longest_and_none_is_owed_afterwards() -> None:
    pace = Pace(now=0.0)
    assert pace.rest_s(60.0, worked_s=60.0) == LONGEST_REST_S
    assert pace.rest_s(60.0 + LONGEST_REST_S + 1.0, worked_s=0.0) == 0.0


@pytest.mark.parametrize(("took_s", "again_s"), [(0.05, 60.0), (0.15, 60.0), (0.6, 200.0), (5.0, 300.0)])
def test_what_takes_long_to_look_at_is_looked_at_less_often(took_s: float, again_s: float) -> None:
    assert look_again_s(took_s) == pytest.approx(again_s)

"""Backoff and circuit breaker, with the clock in hand."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.arsrv.backoff import Breaker, Circuit, retry_delay_s
from appliance.contracts.flow import Retry


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True), st.floats(0.001, 3600), st.floats(0.001, 86400))
def test_the_delay_never_leaves_its_bounds(attempt: int, drawn: float, first_s: float, max_s: float) -> None:
    delay_s = retry_delay_s(Retry(first_s=first_s, max_s=max_s), attempt, lambda: drawn)
    assert first_s <= delay_s <= first_s + max_s


def test_the_delay_grows_twofold_until_its_ceiling() -> None:
    retry = Retry(first_s=1, max_s=10)
    assert [retry_delay_s(retry, attempt, lambda: 1.0) for attempt in range(1, 6)] == [3, 5, 9, 11, 11]


def test_failures_in_a_row_open_the_breaker_and_one_success_closes_it() -> None:
    breaker = Breaker(threshold=2, longest_s=4)
    breaker.record(False, 0)
    assert breaker.admit(0) == 0
    breaker.record(False, 0)
    assert breaker.admit(0.25) == 0.75
    assert breaker.admit(1) == 0, "one probe goes when the time is over"
    assert breaker.admit(1) is None, "and only one"
    breaker.record(False, 1)
    assert breaker.admit(1) == 2, "a probe that fails doubles the wait"
    assert breaker.admit(3) == 0
    breaker.record(True, 3)
    assert [breaker.admit(3), breaker.admit(3)] == [0, 0]


@given(st.lists(st.booleans(), max_size=60))
def test_an_open_breaker_admits_again_within_its_longest_time(outcomes: list[bool]) -> None:
    breaker, now = Breaker(threshold=3, longest_s=8), 0.0
    for ok in outcomes:
        wait_s = breaker.admit(now)
        assert wait_s is not None
        assert 0 <= wait_s <= 8
        now += wait_s
        if wait_s:
            assert breaker.admit(now) == 0
        breaker.record(ok, now)


def test_an_attempt_that_is_cancelled_leaves_the_probe_to_another() -> None:
    async def scenario() -> bool:
        breaker = Breaker(threshold=1, longest_s=0.001)
        breaker.record(False, asyncio.get_running_loop().time())
        circuit, entered = Circuit(breaker), asyncio.Event()

        async def hang() -> None:
            async with circuit.attempt():
                entered.set()
                await asyncio.Event().wait()

        first = asyncio.create_task(hang())
        await entered.wait()
        second = asyncio.create_task(pass_through(circuit))
        first.cancel()
        return await second

    async def pass_through(circuit: Circuit) -> bool:
        async with circuit.attempt():
            return True

    async def bounded() -> bool:
        return await asyncio.wait_for(scenario(), 10)

    assert asyncio.run(bounded())


def test_a_failure_in_the_attempt_reaches_the_caller() -> None:
    async def scenario() -> None:
        async with Circuit().attempt():
            raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(scenario())

"""Password policy, hashes and the brake on guessing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.arclst.passwords import (
    LONGEST,
    Throttle,
    TooManyAttempts,
    WeakPassword,
    check_policy,
    hash_password,
    verify_password,
)

KEY = ("192.0.2.1", "admin")


@pytest.mark.parametrize(
    "password", ["", "short", "123456789", "aaaaaaaaaaaa", "abababababab", "admin123456", "x" * 300]
)
def test_a_weak_password_is_refused_with_a_reason(password: str) -> None:
    with pytest.raises(WeakPassword) as refusal:
        check_policy(password, "admin")
    assert refusal.value.problem.status == 400
    assert refusal.value.problem.hint


def test_a_long_enough_password_is_accepted() -> None:
    check_policy("correct horse", "admin")


def test_only_the_right_password_verifies() -> None:
    kept = hash_password("correct horse")
    assert kept.startswith("$argon2id$")
    assert verify_password(kept, "correct horse")
    assert not verify_password(kept, "correct horsf")
    assert not verify_password(None, "correct horse")
    assert not verify_password("damaged", "correct horse")


def test_a_password_that_is_too_long_never_verifies() -> None:
    kept = hash_password("x" * LONGEST)
    assert not verify_password(kept, "x" * 10**6)


def test_guessing_gets_slower_with_every_failure() -> None:
    throttle, now, waits = Throttle(free=3, longest_s=8), 0.0, []
    for _ in range(8):
        throttle.enter(KEY, now)
        waited = 0.0
        while True:
            try:
                Throttle.enter(_copy(throttle), KEY, now + waited)
                break
            except TooManyAttempts:
                waited += 1
        waits.append(waited)
        now += waited
    assert waits == [0, 0, 1, 2, 4, 8, 8, 8]


def _copy(throttle: Throttle) -> Throttle:
    other = Throttle(free=3, longest_s=8)
    other._keys = throttle._keys.copy()
    return other


def test_a_right_password_forgets_the_failures_of_its_key_alone() -> None:
    throttle = Throttle(free=1)
    other = ("192.0.2.2", "admin")
    throttle.enter(KEY, 0)
    throttle.enter(other, 0)
    throttle.succeeded(KEY)
    throttle.enter(KEY, 0)
    with pytest.raises(TooManyAttempts):
        throttle.enter(other, 0)


def test_attempts_at_the_same_time_do_not_slip_through() -> None:
    throttle, let_in = Throttle(free=3), 0
    for _ in range(100):
        try:
            throttle.enter(KEY, 0.0)
        except TooManyAttempts:
            continue
        let_in += 1
    assert let_in == 3


@given(st.lists(st.integers(0, 50), max_size=200))
def test_the_memory_is_bounded(sources: list[int]) -> None:
    throttle = Throttle(most=10)
    for now, source in enumerate(sources):
        try:
            throttle.enter((str(source), "admin"), now * 1000.0)
        except TooManyAttempts:
            continue
    assert len(throttle._keys) <= 10

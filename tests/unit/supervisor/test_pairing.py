"""The pairing code: shown to whom stands at the machine, useless to whom guesses."""

import re
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.contracts.user import PairingAttempt
from appliance.supervisor.pairing import (
    ALPHABET,
    LIFETIME_S,
    MOST_SOURCES,
    OVERALL,
    PER_SOURCE,
    PairingClosed,
    PairingDesk,
    TooManyTries,
    WrongCode,
    network_of,
    normal,
)


class Clock:
    """A monotonic clock and a wall clock that only the test moves; they need not agree."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.wall = 0.0

    def move(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds


def counting() -> Callable[[str], str]:
    """Return a chooser that gives a different code each time, the same ones in each test."""
    numbers = count()

    def choose(alphabet: str) -> str:
        code, place = divmod(next(numbers), 8)
        return alphabet[code // len(alphabet) ** place % len(alphabet)]

    return choose


def desk_at(clock: Clock, *, opened: bool = True) -> PairingDesk:
    return PairingDesk(
        opened=opened, monotonic=lambda: clock.monotonic, wall=lambda: clock.wall, choose=counting()
    )


def code_of(desk: PairingDesk) -> str:
    pairing = desk.current()
    assert pairing is not None
    return pairing.code


def send(desk: PairingDesk, code: str, source: str = "192.0.2.1") -> None:
    desk.attempt(PairingAttempt(code=code, source=source))


def send_wrong(desk: PairingDesk, source: str = "192.0.2.1", times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(WrongCode):
            send(desk, "XXXX-XXXX", source)


def test_a_code_is_two_groups_of_four_and_holds_for_fifteen_minutes() -> None:
    clock = Clock()
    pairing = desk_at(clock).current()
    assert pairing is not None
    assert re.fullmatch(f"[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}", pairing.code)
    assert pairing.expires_at == clock.wall + 900.0


def test_codes_from_the_real_source_of_randomness_differ() -> None:
    assert len({code_of(PairingDesk(opened=True)) for _ in range(50)}) == 50


def test_the_right_code_is_used_up() -> None:
    desk = desk_at(Clock())
    code = code_of(desk)
    send(desk, code)
    assert desk.current() is None
    with pytest.raises(PairingClosed):
        send(desk, code)


def test_a_closed_desk_has_no_code_until_somebody_at_the_machine_asks() -> None:
    desk = desk_at(Clock(), opened=False)
    assert desk.current() is None
    with pytest.raises(PairingClosed):
        send(desk, "")
    opened = desk.open()
    assert desk.open() == opened
    send(desk, opened.code)


@pytest.mark.parametrize("typed", ["{lower}", " {code} ", "{bare}", "{spaced}"])
def test_a_code_is_accepted_as_people_type_it(typed: str) -> None:
    desk = desk_at(Clock())
    code = code_of(desk)
    bare = code.replace("-", "")
    send(desk, typed.format(code=code, lower=code.lower(), bare=bare, spaced=" ".join(bare)))
    assert desk.current() is None


@pytest.mark.parametrize("typed", ["", "-", "XXXX-XXXX", "X" * 100_000, "ßßßß-ßßßß", "\0"])
def test_anything_else_is_wrong_and_leaves_the_code_standing(typed: str) -> None:
    desk = desk_at(Clock())
    code = code_of(desk)
    with pytest.raises(WrongCode) as caught:
        send(desk, typed)
    assert caught.value.problem.code == "wrong-pairing-code"
    assert code_of(desk) == code


def test_a_code_expires_and_the_next_one_takes_its_place() -> None:
    clock = Clock()
    desk = desk_at(clock)
    old = code_of(desk)
    clock.move(LIFETIME_S - 1)
    assert code_of(desk) == old
    clock.move(1)
    with pytest.raises(WrongCode):
        send(desk, old)
    assert code_of(desk) != old
    send(desk, code_of(desk))


def test_a_jump_of_the_wall_clock_neither_ends_nor_prolongs_a_code() -> None:
    clock = Clock()
    desk = desk_at(clock)
    code = code_of(desk)
    clock.wall += 50 * 365 * 86400.0
    pairing = desk.current()
    assert pairing is not None
    assert pairing.code == code
    assert pairing.expires_at == clock.wall + LIFETIME_S


def test_a_source_with_five_wrong_tries_is_locked_out_even_with_the_right_code_and_others_are_not() -> None:
    clock = Clock()
    desk = desk_at(clock)
    send_wrong(desk, "192.0.2.66", PER_SOURCE.tries)
    with pytest.raises(TooManyTries) as caught:
        send(desk, code_of(desk), "192.0.2.66")
    assert caught.value.problem.status == 429
    assert caught.value.wait_s == PER_SOURCE.first_s
    assert "30 seconds" in caught.value.problem.hint
    send(desk, code_of(desk), "192.0.2.1")


def test_each_lock_out_is_twice_as_long_up_to_a_limit() -> None:
    clock = Clock()
    desk = desk_at(clock)
    waits = []
    for _ in range(8):
        send_wrong(desk, times=PER_SOURCE.tries)
        with pytest.raises(TooManyTries) as caught:
            send(desk, code_of(desk))
        waits.append(caught.value.wait_s)
        clock.move(max(caught.value.wait_s, OVERALL.most_s))
    assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0, 900.0]


def test_twenty_wrong_tries_from_anywhere_burn_the_code_and_lock_everybody_out_for_a_while() -> None:
    clock = Clock()
    desk = desk_at(clock)
    burnt = code_of(desk)
    for host in range(OVERALL.tries):
        send_wrong(desk, f"192.0.2.{host}")
    assert code_of(desk) != burnt
    with pytest.raises(TooManyTries):
        send(desk, code_of(desk), "198.51.100.1")
    clock.move(OVERALL.first_s)
    send(desk, code_of(desk), "198.51.100.1")


def test_a_success_clears_what_was_held_against_the_sources() -> None:
    desk = desk_at(Clock())
    send_wrong(desk, times=PER_SOURCE.tries - 1)
    send(desk, code_of(desk))
    desk.open()
    send_wrong(desk, times=PER_SOURCE.tries - 1)
    send(desk, code_of(desk))


def test_old_tries_are_forgotten_after_a_quiet_hour() -> None:
    clock = Clock()
    desk = desk_at(clock)
    send_wrong(desk, times=PER_SOURCE.tries - 1)
    clock.move(PER_SOURCE.forget_s + 1)
    send_wrong(desk, times=PER_SOURCE.tries - 1)
    send(desk, code_of(desk))


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_one_host_is_one_source_whatever_address_it_takes(source: str, network: str) -> None:
    assert network_of(source) == network


def test_neither_the_code_nor_the_attempt_is_printed() -> None:
    desk = desk_at(Clock())
    code = code_of(desk)
    assert code not in repr(desk.current())
    assert code not in repr(PairingAttempt(code=code))
    with pytest.raises(WrongCode) as caught:
        send(desk, "QQQQ-QQQQ")
    assert "QQQQ" not in str(caught.value)


@given(st.text(max_size=80))
def test_what_a_code_is_compared_as_does_not_depend_on_case_and_dashes(text: str) -> None:
    once = normal(text)
    assert normal(once[:64]) == once[:64]
    assert "-" not in once
    assert " " not in once


TRY = st.tuples(
    st.sampled_from(["wrong", "right", "wait"]),
    st.sampled_from([f"192.0.2.{host}" for host in range(30)]),
    st.floats(min_value=0.0, max_value=1000.0),
)


def outcome_of(desk: PairingDesk, code: str, source: str) -> str:
    try:
        send(desk, code, source)
    except WrongCode:
        return "wrong"
    except TooManyTries:
        return "too many"
    return "right"


@given(st.lists(TRY, max_size=100))
def test_no_code_is_ever_tried_more_than_twenty_times_or_lives_longer_than_its_time(
    steps: list[tuple[str, str, float]],
) -> None:
    clock = Clock()
    desk = desk_at(clock)
    born: dict[str, float] = {}
    judged: dict[str, int] = {}
    for kind, source, seconds in steps:
        if kind == "wait":
            clock.move(seconds)
            continue
        code = desk.open().code
        born.setdefault(code, clock.monotonic)
        assert clock.monotonic - born[code] < LIFETIME_S
        outcome = outcome_of(desk, code if kind == "right" else "XXXX-XXXX", source)
        judged[code] = judged.get(code, 0) + (outcome == "wrong")
        assert outcome in (kind, "too many")
        assert (desk.current() is None) == (outcome == "right")
    assert all(tries <= OVERALL.tries for tries in judged.values())


def test_however_many_sources_try_memory_is_bounded() -> None:
    clock = Clock()
    desk = desk_at(clock)
    for host in range(2 * MOST_SOURCES):
        clock.move(OVERALL.most_s)
        send_wrong(desk, f"10.0.{host // 256}.{host % 256}")
    assert len(desk._sources) == MOST_SOURCES

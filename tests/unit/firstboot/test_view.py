"""What keys do: nothing that hurts without a yes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstboot.view import MENU, Action, Confirm, Log, Menu, QrCode, View, answered, heard, log_read, press, unheard
from tests.unit.firstboot.samples import AT, AWAY, ON_TRIAL, READY


def after(*keys: str) -> tuple[View, list[Action]]:
    view = View()
    actions: list[Action] = []
    for key in keys:
        view, action = press(view, key)
        if action is not None:
            actions.append(action)
    return view, actions


@pytest.mark.parametrize(
    ("keys", "actions"),
    [
        (("f2", "down", "enter", "y"), ["restart"]),
        (("p", "up", "enter", "Y"), ["power-off"]),
        (("f2", "down", "down", "enter", "n"), []),
        (("f2", "down", "enter", "esc"), []),
        (("f2", "down", "enter", "enter"), []),
        (("f2", "enter", "y"), ["repaint"]),
        (("f2", "esc", "y"), ["repaint"]),
        (("f2", "f2", "enter"), ["repaint"]),
        (("y",), ["repaint"]),
    ],
)
def test_the_machine_goes_down_only_after_choice_and_yes(keys: tuple[str, ...], actions: list[str]) -> None:
    view, done = after(*keys)
    assert done == actions
    assert view.panel is None


@given(st.lists(st.sampled_from(["enter", " ", "f2", "p", "esc", "l", "n", "x"]), max_size=30))
def test_leaning_on_the_keyboard_never_takes_the_machine_down(keys: list[str]) -> None:
    _, actions = after(*keys)
    assert not {"restart", "power-off"} & set(actions)


def test_the_menu_goes_round() -> None:
    view, _ = after("f2", *["down"] * len(MENU))
    assert view.panel == Menu(0)
    view, _ = after("f2", "up")
    assert view.panel == Menu(len(MENU) - 1)


def test_f4_asks_for_a_pairing_code() -> None:
    assert after("f4") == (View(), ["open-pairing"])


def test_a_change_on_trial_is_kept_with_f6_while_there_is_one_and_somebody_hears_it() -> None:
    view = heard(View(), ON_TRIAL, AT)
    assert press(view, "f6") == (view, "keep-change")
    assert press(unheard(view, AWAY), "f6")[1] == "repaint"
    assert press(heard(view, READY, AT), "f6")[1] == "repaint"


def test_the_log_is_read_when_opened_and_again_on_request() -> None:
    view, actions = after("l")
    assert (view.panel, actions) == (Log(), ["read-log"])
    view = log_read(view, ("one",))
    assert view.panel == Log(("one",), read=True)
    assert press(view, "l") == (view, "read-log")
    assert press(view, "esc")[0].panel is None


def test_a_log_that_comes_after_it_was_closed_opens_nothing() -> None:
    view, _ = after("l", "esc")
    assert log_read(view, ("one",)).panel is None


def test_any_other_key_repaints_and_clears_the_last_answer() -> None:
    assert press(answered(View(), AWAY), "x") == (View(), "repaint")
    assert press(View(panel=Confirm("restart")), "x") == (View(panel=Confirm("restart")), "repaint")


def test_what_was_heard_last_stays_while_the_supervisor_is_away() -> None:
    view = unheard(heard(View(), READY, AT), AWAY)
    assert (view.status, view.heard_at, view.away, view.pairing) == (READY, AT, AWAY, None)
    back = heard(view, READY, AT + 9)
    assert (back.away, back.heard_at, back.pairing) == (None, AT + 9, READY.pairing)


def test_the_qr_code_is_shown_and_goes_away() -> None:
    view, actions = after("q")
    assert (view.panel, actions) == (QrCode(), [])
    assert press(view, "esc")[0].panel is None

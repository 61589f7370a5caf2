"""The local screen's picture, compared as text with `screens/*.txt`.

`python -m tests.unit.firstboot.test_layout` writes them anew; look at the difference before it is committed.
"""

from pathlib import Path

import msgspec
import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st

from appliance.contracts.machine import MachineStatus, Pairing
from appliance.errors import Problem
from firstboot.layout import compose, text_of
from firstboot.span import Line, plain
from firstboot.view import Menu, QrCode, View, answered
from tests.unit.firstboot.samples import AT, FAILED, READY, SCREENS

FOLDER = Path(__file__).with_name("screens")


def view_of(status: MachineStatus) -> View:
    return View(status=status, heard_at=status.at)


def row_with(lines: list[Line], text: str) -> str:
    (found,) = (plain(line) for line in lines if text in plain(line))
    return found


@pytest.mark.parametrize("name", sorted(SCREENS))
def test_the_picture_is_what_was_agreed(name: str) -> None:
    assert text_of(compose(SCREENS[name])) == (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def test_every_picture_that_was_agreed_is_compared() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(SCREENS)


@given(st.sampled_from(sorted(SCREENS)), st.integers(1, 200), st.integers(1, 70))
def test_a_picture_fills_a_terminal_of_any_size_exactly(name: str, width: int, height: int) -> None:
    lines = compose(SCREENS[name], width, height)
    assert len(lines) == height
    assert {len(plain(line)) for line in lines} == {width}


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=200))
def test_whatever_a_value_holds_it_moves_no_cursor_and_every_console_font_can_show_it(
    name: str, message: str, hint: str
) -> None:
    status = msgspec.structs.replace(
        FAILED, name=name, step=message, last_error=Problem(code="x", message=message, hint=hint), uplink=(hint,)
    )
    for line in compose(view_of(status)):
        assert plain(line).isprintable()
        plain(line).encode("cp437")
        assert len(plain(line)) == 80


def test_a_fact_stays_in_its_row_whatever_else_is_known() -> None:
    label_rows = {
        name: [plain(line)[:17] for line in compose(view)][4:9]
        for name, view in SCREENS.items()
        if view.panel is None
    }
    assert len({tuple(rows) for rows in label_rows.values()}) == 1


def test_the_minutes_of_a_code_come_from_the_supervisors_clock_alone() -> None:
    pairing = Pairing(code="7K3M-9QXT", expires_at=AT + 61)
    view = View(status=msgspec.structs.replace(READY, pairing=pairing), heard_at=0.0)
    assert "valid for 2 min" in row_with(compose(view), "7K3M-9QXT")


def test_a_long_name_and_version_take_the_place_of_the_subtitle() -> None:
    status = msgspec.structs.replace(READY, name="x" * 32, version="0.1.1795461432+646c48f2")
    title = plain(compose(view_of(status))[0])
    assert title.startswith(" ALPHA-REN ")
    assert title.endswith(f"{'x' * 32} \N{MIDDLE DOT} qemu \N{MIDDLE DOT} 0.1.1795461432+646c48f2 ")


def test_no_code_is_shown_while_nobody_would_accept_it() -> None:
    assert "7K3M-9QXT" not in text_of(compose(SCREENS["away"]))


def test_an_error_shows_code_sentence_and_hint() -> None:
    problem = Problem(code="some-code", message="A sentence.", hint="A hint.")
    shown = text_of(compose(view_of(msgspec.structs.replace(READY, last_error=problem))))
    assert " \N{BLACK SQUARE} some-code: A sentence.\n   A hint.\n" in shown


def test_what_became_of_a_key_comes_before_what_the_supervisor_says() -> None:
    shown = text_of(compose(answered(view_of(FAILED), Problem(code="command-failed", message="No."))))
    assert "command-failed: No." in shown
    assert "unit-failed" not in shown


def test_a_state_is_a_word_and_not_only_a_colour() -> None:
    for word in ("Ready", "Starting", "Not ready", "Not known"):
        assert any(word in text_of(compose(view)) for view in SCREENS.values())


def test_a_panel_covers_only_its_own_place() -> None:
    without = compose(view_of(READY))
    with_menu = compose(msgspec.structs.replace(view_of(READY), panel=Menu()))
    changed = [row for row, (one, other) in enumerate(zip(without, with_menu, strict=True)) if one != other]
    assert changed == list(range(8, 16))
    for row in changed:
        assert plain(with_menu[row])[:17] == plain(without[row])[:17]
        assert plain(with_menu[row])[63:] == plain(without[row])[63:]


def test_the_qr_code_has_every_square_where_it_belongs() -> None:
    url = "https://box.example:8443/"
    status = msgspec.structs.replace(READY, console_url=url)
    lines = [line for line in compose(View(status=status, panel=QrCode())) if any(style == "qr" for style, _ in line)]
    drawn: list[list[bool]] = []
    for line in lines:
        (halves,) = (text for style, text in line if style == "qr")
        drawn.append([half in "\N{FULL BLOCK}\N{UPPER HALF BLOCK}" for half in halves])
        drawn.append([half in "\N{FULL BLOCK}\N{LOWER HALF BLOCK}" for half in halves])
    code = segno.make(url, error="l", micro=False, boost_error=False)
    wanted = [[bool(square) for square in row] for row in code.matrix_iter(border=2)]
    assert drawn[: len(wanted)] == wanted
    assert not any(square for row in drawn[len(wanted) :] for square in row)


@pytest.mark.parametrize("url", ["", "https://" + "x" * 200 + ".example/"])
def test_without_room_or_url_the_qr_code_is_a_sentence(url: str) -> None:
    status = msgspec.structs.replace(READY, console_url=url)
    shown = text_of(compose(View(status=status, panel=QrCode())))
    assert ("no URL yet" in shown) if not url else ("too small" in shown)


if __name__ == "__main__":
    for name, view in SCREENS.items():
        (FOLDER / f"{name}.txt").write_text(text_of(compose(view)), encoding="utf-8")

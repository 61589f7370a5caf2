"""The local screen's picture: a pure function from what is known to lines of coloured text.

Every fact has its own row and column, whatever else is shown, so that nothing jumps when a value comes or goes. Only
characters of code page 437 are used, since those are all that the console font of a PC is sure to have; colour never
says what no word says.
"""

import math
import textwrap
from collections import Counter
from datetime import UTC, datetime

from appliance.contracts.machine import MachineStatus, PendingChange, UnitState
from appliance.errors import Problem
from firstboot.panel import lay_over, log_lines, qr_lines
from firstboot.span import Line, Style, clip, fill, of, plain
from firstboot.view import Log, QrCode, View

WIDTH, HEIGHT = 80, 24
LABEL = 18
NAME = 12
REPORT = 4

WORST: tuple[UnitState, ...] = (
    "failed", "unknown", "inactive", "deactivating", "activating", "reloading", "active",
)  # fmt: skip
"""An instance is as well as its worst unit; worst first."""

STATE_STYLE: dict[UnitState, Style] = {
    "active": "good",
    "reloading": "good",
    "activating": "busy",
    "deactivating": "busy",
    "inactive": "busy",
    "unknown": "bad",
    "failed": "bad",
}


def compose(view: View, width: int = WIDTH, height: int = HEIGHT) -> list[Line]:
    """Return exactly `height` lines of exactly `width` characters."""
    if isinstance(view.panel, Log):
        head = [_title(view, width), (), rule("Log", width)]
        lines = [*head, *log_lines(view.panel, height - len(head) - 1), _keys(LOG_KEYS, width)]
    elif isinstance(view.panel, QrCode):
        url = view.status.console_url if view.status else ""
        head = [_title(view, width), (), rule("Console", width)]
        lines = [*head, *qr_lines(url, width, height - len(head) - 1), _keys(QR_KEYS, width)]
    else:
        top = [_title(view, width), (), _state(view, width), (), *_facts(view), ()]
        bottom = [rule("", width), *_report(view, width), _keys(PENDING_KEYS if view.pending else KEYS, width)]
        room = max(0, height - len(top) - len(bottom) - 1)
        lines = [*top, rule("Components", width), *_components(view, width, room), *bottom]
    fitted = [fill(clip(line, width), width) for line in lines[:height]]
    return lay_over(fitted, view, width)


KEYS = (("F2", "Power"), ("F4", "Pairing code"), ("L", "Log"), ("Q", "QR code"))
PENDING_KEYS = (*KEYS, ("F6", "Keep it"))
LOG_KEYS = (("L", "Read again"), ("Esc", "Back"))
QR_KEYS = (("Esc", "Back"),)


def text_of(lines: list[Line]) -> str:
    """Return the lines as plain text."""
    return "\n".join(plain(line).rstrip() for line in lines) + "\n"


def _title(view: View, width: int) -> Line:
    status = view.status
    who = (status.name, status.profile, status.version) if status else (view.version,)
    right = " \N{MIDDLE DOT} ".join(part for part in who if part) + " "
    left = " ALPHA-REN  integration appliance"
    # Who it is comes before what it is, where there is no room for both.
    left = left if len(left) + len(right) + 2 <= width else left[:10]
    gap = max(2, width - len(left) - len(right))
    return (*of("title", left[:10]), *of("title-dim", left[10:] + " " * gap + right))


def _state(view: View, width: int) -> Line:
    style, word, *details = _judge(view)
    room = width - LABEL - 1
    detail = next((text for text in details if len(text) <= room), details[-1])
    return (*of(style, f" \N{BLACK SQUARE} {word}".ljust(LABEL)), *of("value", detail))


def _judge(view: View) -> tuple[Style, str, *tuple[str, ...]]:
    """Return how the machine is: a colour, a word, and details to pick from, the longest first."""
    status = view.status
    if view.away:
        if status is None:
            return "busy", "Starting", "waiting for the supervisor"
        since = datetime.fromtimestamp(view.heard_at, UTC).strftime("%H:%M:%S UTC")
        return "bad", "Not known", f"no answer from the supervisor; below as of {since}"
    if status is None:
        return "busy", "Starting", "asking the supervisor"
    if status.ready:
        return "good", "Ready", *_boot(status)
    states = _instances(status)
    failed = sorted(name for name, state in states.items() if STATE_STYLE[state] == "bad")
    if failed:
        return "bad", "Not ready", f"{_some(failed)} failed" + (f"; {status.step}" if status.step else "")
    waiting = [name for name, state in states.items() if state != "active"]
    step = status.step or (f"waiting for {_some(waiting)}" if waiting else "the self-test has not passed yet")
    return "busy", "Starting", f"{len(states) - len(waiting)} of {len(states)} active \N{MIDDLE DOT} {step}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _boot(status: MachineStatus) -> tuple[str, ...]:
    if not status.boot:
        return ("",)
    total = f"started in {sum(phase.seconds for phase in status.boot):.1f} s"
    phases = ", ".join(f"{phase.name} {phase.seconds:.1f}" for phase in status.boot)
    return f"{total}: {phases}", total


def _facts(view: View) -> list[Line]:
    status = view.status
    digest = status.fingerprint if status else ""
    style: Style = "dim" if view.away else "value"
    return [
        _fact("Console", "address" if style == "value" else style, status.console_url if status else ""),
        _fact("Uplink", style, "  ".join(status.uplink) if status else "", _no_address(status)),
        # Two lines of sixteen bytes, as 95 characters fit no 80 columns and browsers break them there too.
        _fact("Fingerprint", style, digest[:47]),
        _fact("", style, digest[48:], ""),
        _pairing(view),
    ]


def _no_address(status: MachineStatus | None) -> str:
    lost = status is not None and not any(nic.role == "uplink" for nic in status.nics)
    missing = status is not None and any(warning.code == "nic-missing" for warning in status.warnings)
    return "no network card" if lost and missing else "no address yet"


def _fact(label: str, style: Style, value: str, missing: str = "-") -> Line:
    return (*of("label", f"   {label}".ljust(LABEL)), *(of(style, value) if value else of("dim", missing)))


def _pairing(view: View) -> Line:
    pairing, status = view.pairing, view.status
    if pairing is None or status is None:
        return _fact("Pairing code", "dim", "" if view.away or not status else "none now, press F4 for one")
    # From the supervisor's own two times, so that it holds also when this clock is set.
    minutes = max(1, math.ceil((pairing.expires_at - status.at) / 60))
    left = f"   for the web console, valid for {minutes} min"
    return (*of("label", "   Pairing code".ljust(LABEL)), *of("code", pairing.code), *of("label", left))


def _instances(status: MachineStatus) -> dict[str, UnitState]:
    """Return each instance's state, in the order in which the supervisor lists them."""
    states: dict[str, UnitState] = {}
    for unit in status.units:
        states[unit.instance] = min(states.get(unit.instance, "active"), unit.state, key=WORST.index)
    return states


def _components(view: View, width: int, room: int) -> list[Line]:
    cells: list[Line] = []
    columns = max(1, (width - 3) // 25)
    if view.status is not None:
        states = _instances(view.status)
        cells = [_cell(name, state, state, dim=view.away is not None) for name, state in states.items()]
        if len(cells) > room * columns:
            cells = _summed_up(view.status, states, dim=view.away is not None)
            columns = max(1, (width - 3) // 38)
    wide = (width - 3) // columns
    rows = -(-len(cells) // columns)
    lines: list[Line] = []
    for row in range(min(rows, room)):
        line: Line = (("value", "   "),)
        for cell in cells[row::rows]:  # down the columns, as people read lists
            line = (*line, *fill(clip(cell, wide - 1), wide))
        lines.append(line)
    return [*lines, *([()] * (room - len(lines)))]


def _summed_up(status: MachineStatus, states: dict[str, UnitState], *, dim: bool) -> list[Line]:
    """Return a cell for each component, for machines with more instances than the screen has room for."""
    of_component: dict[str, Counter[UnitState]] = {}
    component_of = {unit.instance: unit.component for unit in status.units}
    for instance, state in states.items():
        of_component.setdefault(component_of[instance], Counter())[state] += 1
    cells = []
    for component, counts in of_component.items():
        worst = min(counts, key=WORST.index)
        total = sum(counts.values())
        word = worst if total == 1 else f"{counts[worst]} of {total} {worst}"
        cells.append(_cell(component, worst, word, dim=dim))
    return cells


def _cell(name: str, state: UnitState, word: str, *, dim: bool) -> Line:
    style: Style = "dim" if dim else STATE_STYLE[state]
    quiet: Style = "dim" if dim or state == "active" else style
    return (*of(style, "\N{BLACK SQUARE} "), *of("dim" if dim else "value", name.ljust(NAME)), *of(quiet, word))


def rule(title: str, width: int) -> Line:
    """Return a horizontal line with a title in it."""
    line = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
    if not title:
        return (("rule", f" {line * (width - 2)} "),)
    return (("rule", f" {line} "), ("label", title), ("rule", f" {line * (width - 5 - len(title))} "))


def _report(view: View, width: int) -> list[Line]:
    """Return the four lines about what is wrong: code and sentence, then the hint, two lines for each."""
    status = view.status
    if status is None:
        note = "The supervisor has not answered yet; L shows the log."
        return [(), of("dim", f"   {note}"), (), ()]
    problem = view.answer or view.away or _on_trial(view.pending) or status.last_error
    if problem is None and status.warnings:
        return _warnings(status.warnings, width)
    if problem is None:
        note = status.notes[0] if status.notes else "No problem is known."
        return [(), *([*_wrapped(note, "dim", width), (), ()][:3])]
    return _problem(problem, width)


def _warnings(warnings: tuple[Problem, ...], width: int) -> list[Line]:
    """Return one warning with its hint, two without, or more on a line each."""
    if len(warnings) == 1:
        return _problem(warnings[0], width, "busy")
    shown = warnings if len(warnings) <= REPORT else warnings[: REPORT - 1]
    lines = [line for warning in shown for line in _sentence(warning, "busy", width, REPORT // len(shown))]
    more = len(warnings) - len(shown)
    lines += [of("label", f"   and {more} more: `alpha-ren status` has them all")] if more else []
    return [*lines, *([()] * (REPORT - len(lines)))]


def _on_trial(pending: PendingChange | None) -> Problem | None:
    if pending is None:
        return None
    hint = f"Undone in {pending.seconds_left:.0f} s unless kept: by F6 or with `alpha-ren confirm`."
    return Problem(code="on-trial", message=f"{'; '.join(pending.touched)}.", hint=hint)


def _problem(problem: Problem, width: int, style: Style = "bad") -> list[Line]:
    lines = [*_sentence(problem, style, width), *_wrapped(problem.hint, "label", width)]
    return [*lines, *([()] * (REPORT - len(lines)))]


def _sentence(problem: Problem, style: Style, width: int, most: int = 2) -> list[Line]:
    """Return code and sentence on at most so many lines."""
    code = f"{problem.code}: "
    first, *more = _wrapped(code + problem.message, "value", width, most)
    return [(*of(style, f" \N{BLACK SQUARE} {code}"), *of("value", plain(first)[3 + len(code) :])), *more]


def _wrapped(text: str, style: Style, width: int, most: int = 2) -> list[Line]:
    """Return the text on at most so many lines, `>` at the end where it needs more."""
    lines = textwrap.wrap(text, max(20, width - 6), max_lines=most, placeholder=" >")
    return [of(style, f"   {line}") for line in lines]


def _keys(keys: tuple[tuple[str, str], ...], width: int) -> Line:
    line: Line = (("bar", " "),)
    for key, meaning in keys:
        line = (*line, ("bar-key", f" {key} "), ("bar", f"{meaning}   "))
    right = "any other key repaints "
    room = width - sum(len(text) for _, text in line)
    return (*line, ("bar", right.rjust(room) if len(right) <= room else " " * room))

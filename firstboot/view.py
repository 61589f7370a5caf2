"""What the local screen shows, as data, and what a key does to it: no terminal and no clock in here."""

from typing import Literal

import msgspec

from appliance.contracts.machine import MachineStatus, Pairing, PendingChange
from appliance.errors import Problem

Action = Literal["restart", "power-off", "open-pairing", "keep-change", "read-log", "repaint"]
Power = Literal["restart", "power-off"]


class Menu(msgspec.Struct, frozen=True):
    """The power menu; `selected` counts through MENU."""

    selected: int = 0


class Confirm(msgspec.Struct, frozen=True):
    """The question before the machine goes down."""

    power: Power


class Log(msgspec.Struct, frozen=True):
    """The newest lines of the journal, oldest first; `read` is false until they have come."""

    lines: tuple[str, ...] = ()
    read: bool = False


class QrCode(msgspec.Struct, frozen=True):
    """The console's URL as a QR code, for a telephone."""


Panel = Menu | Confirm | Log | QrCode

MENU: tuple[tuple[str, Power | None], ...] = (("Cancel", None), ("Restart", "restart"), ("Power off", "power-off"))
"""Cancel first: whoever leans on the keyboard restarts nothing."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the screen shows. `version` is what this firmware says of itself while nobody else says anything.

    `status` is the last that was heard, at `heard_at` (Unix time); `away` is why nothing is heard now. `answer` is what
    became of the last key that did something.
    """

    version: str = ""
    status: MachineStatus | None = None
    heard_at: float = 0.0
    away: Problem | None = None
    panel: Panel | None = None
    answer: Problem | None = None

    @property
    def pairing(self) -> Pairing | None:
        """The pairing code that can be used now; while the supervisor is away nobody would accept one."""
        return self.status.pairing if self.status and not self.away else None

    @property
    def pending(self) -> PendingChange | None:
        """The change that can be kept now."""
        return self.status.pending if self.status and not self.away else None


def heard(view: View, status: MachineStatus, at: float) -> View:
    """Return the view after the supervisor said how it is."""
    return msgspec.structs.replace(view, status=status, heard_at=at, away=None)


def unheard(view: View, problem: Problem) -> View:
    """Return the view after the supervisor could not be asked."""
    return msgspec.structs.replace(view, away=problem)


def answered(view: View, problem: Problem | None) -> View:
    """Return the view after an action ended, with `problem` where it failed."""
    return msgspec.structs.replace(view, answer=problem)


def log_read(view: View, lines: tuple[str, ...]) -> View:
    """Return the view with the journal's lines, if the log is still open."""
    return msgspec.structs.replace(view, panel=Log(lines, read=True)) if isinstance(view.panel, Log) else view


def press(view: View, key: str) -> tuple[View, Action | None]:
    """Return the view after a key (urwid's names) and what is to be done; a key without a meaning repaints."""
    view = answered(view, None)
    key = key.lower() if len(key) == 1 else key
    match view.panel:
        case Menu(selected):
            return _press_in_menu(view, selected, key)
        case Confirm(power):
            return _press_in_confirm(view, power, key)
        case Log():
            return _press_in_log(view, key)
        case QrCode():
            return (_with(view, None), None) if key in ("esc", "q", "enter") else (view, "repaint")
        case _:
            return _press(view, key)


def _press(view: View, key: str) -> tuple[View, Action | None]:
    match key:
        case "f2" | "p":
            return _with(view, Menu()), None
        case "f4" | "c":
            return view, "open-pairing"
        case "f6" | "k" if view.pending is not None:
            return view, "keep-change"
        case "l":
            return _with(view, Log()), "read-log"
        case "q":
            return _with(view, QrCode()), None
    return view, "repaint"


def _press_in_confirm(view: View, power: Power, key: str) -> tuple[View, Action | None]:
    if key == "y":
        return _with(view, None), power
    return (_with(view, None), None) if key in ("n", "esc", "enter") else (view, "repaint")


def _press_in_log(view: View, key: str) -> tuple[View, Action | None]:
    if key == "l":
        return view, "read-log"
    return (_with(view, None), None) if key in ("esc", "q", "enter") else (view, "repaint")


def _press_in_menu(view: View, selected: int, key: str) -> tuple[View, Action | None]:
    match key:
        case "up" | "k":
            return _with(view, Menu((selected - 1) % len(MENU))), None
        case "down" | "j" | "tab":
            return _with(view, Menu((selected + 1) % len(MENU))), None
        case "enter" | " ":
            power = MENU[selected][1]
            return _with(view, Confirm(power) if power else None), None
        case "esc" | "f2" | "p" | "q":
            return _with(view, None), None
    return view, "repaint"


def _with(view: View, panel: Panel | None) -> View:
    return msgspec.structs.replace(view, panel=panel)

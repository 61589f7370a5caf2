"""Lines of the journal that peers cause, at whatever rate they like: a few of each say it, the others are counted."""

import logging
from collections.abc import Callable

import msgspec

WINDOW_S = 60.0
FEW = 5
MOST = 64
"""Of so many peers and kinds of lines within a window each is told by itself, of all others together."""
OTHERS = ("", "")


class Told(msgspec.Struct):
    """How often something was to be told, and what was told first."""

    level: int
    line: str
    count: int = 0


class Sparing:
    """Writes the first FEW lines of a kind about a peer in each WINDOW_S, and at its end how many it has left out."""

    def __init__(self, log: logging.Logger, now: Callable[[], float]) -> None:
        self._log = log
        self._now = now
        self._since = now()
        self._told: dict[tuple[str, str], Told] = {}

    def tell(self, level: int, message: str, peer: str, *args: object) -> None:
        """Write `message`, if it may be; `peer` is the first of its arguments."""
        about = (message, peer)
        if about not in self._told and len(self._told) >= MOST:
            about = OTHERS
        if about not in self._told:
            self._told[about] = Told(level, message % (peer, *args))
        told = self._told[about]
        told.count += 1
        if told.count <= FEW:
            self._log.log(level, message, peer, *args)

    def pass_time(self) -> None:
        """Say what was left out, once the window is over. To be called every now and then."""
        now = self._now()
        if now - self._since < WINDOW_S:
            return
        told, self._told, self._since = self._told, {}, now
        for each in told.values():
            if each.count > FEW:
                self._log.log(each.level, "%d more like this within %.0f s: %s", each.count - FEW, WINDOW_S, each.line)

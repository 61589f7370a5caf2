"""Why the supervisor wakes, and how soon it may work again: causes are gathered while it works, and taken all at once
when it looks again.
"""

import asyncio
import time

MOST_CAUSES = 8
SEPARATOR = "; "
BURST_S = 1.0
SHARE = 1 / 3
LONGEST_REST_S = 3.0

LOOK_EVERY_S, LOOK_SELDOM_S = 60.0, 300.0
LOOKS_SHARE = 0.003
"""Looks at everything are to take no more of a core than that: a box of hundreds of servers waits longer for the next,
though never longer than LOOK_SELDOM_S.
"""


class Wake:
    """An event with reasons."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._causes: dict[str, None] = {}
        self._began = 0.0
        self.began = 0.0
        """When the first of the causes that were taken last came, on the monotonic clock."""

    def __call__(self, cause: str) -> None:
        """Wake whoever waits; `cause` is one sentence for the journal."""
        if not self._causes:
            self._began = time.monotonic()
        self._causes[cause] = None
        self._event.set()

    async def wait(self, deadline_s: float) -> str:
        """Return the causes since the last time in one line, or `timer` when none came within `deadline_s`."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._event.wait()
        except TimeoutError:
            self.began = time.monotonic()
            return "timer"
        return self.taken()

    def taken(self) -> str:
        """Return the causes so far and forget them."""
        causes, self._causes = list(self._causes), {}
        self.began = self._began
        self._event.clear()
        more = len(causes) - MOST_CAUSES
        return SEPARATOR.join(causes[:MOST_CAUSES]) + (f"; and {more} more" if more > 0 else "")


def look_again_s(took_s: float) -> float:
    """Return when to look at everything again, after a look that took so many seconds of processor time."""
    return min(LOOK_SELDOM_S, max(LOOK_EVERY_S, took_s / LOOKS_SHARE))


class Pace:
    """How long to rest between two rounds: not at all after little work, and two thirds of the time in a storm.

    Work is paid from a purse of BURST_S seconds, which fills again by SHARE of the time that passes. `now` is
    monotonic.
    """

    def __init__(self, now: float) -> None:
        self._purse = BURST_S
        self._filled = now

    def rest_s(self, now: float, worked_s: float) -> float:
        """Return the rest after work of so many seconds that ends now."""
        self._purse = min(BURST_S, self._purse + SHARE * (now - self._filled)) - worked_s
        self._filled = now
        rest_s = min(LONGEST_REST_S, max(0.0, -self._purse / SHARE))
        self._purse = max(self._purse, -LONGEST_REST_S * SHARE)
        return rest_s

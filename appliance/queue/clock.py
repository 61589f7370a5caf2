"""The two clocks of the broker."""

import time
from typing import Protocol


class Clock(Protocol):
    """`now()` drives leases and delays, `wall()` not-before and expiry (Unix time, seconds)."""

    def now(self) -> float:
        """Return broker time in seconds: monotonic, and carried on across restarts, never ahead of real time."""

    def wall(self) -> float:
        """Return Unix time in seconds."""

    def resume(self, at: float) -> None:
        """Let broker time go on from the last value that is on disk."""


class SystemClock:
    """Broker time stands still while the broker is down, so a delay never gets shorter by a restart."""

    def __init__(self) -> None:
        self._offset = -time.monotonic()

    def now(self) -> float:
        """See Clock."""
        return time.monotonic() + self._offset

    def wall(self) -> float:
        """See Clock."""
        return time.time()

    def resume(self, at: float) -> None:
        """See Clock."""
        self._offset = at - time.monotonic()

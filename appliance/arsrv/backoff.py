"""How long to wait before a delivery is tried again, and whom not to try at all for a while."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from appliance.contracts.flow import Retry


def retry_delay_s(retry: Retry, attempt: int, draw: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after attempt number `attempt` (from 1) failed: exponential with full jitter."""
    ceiling = min(retry.max_s, retry.first_s * 2.0 ** min(attempt, 64))
    return retry.first_s + draw() * ceiling


class Breaker:
    """Whether a target may be tried, from the failures in a row and the time; the clock is handed in, in seconds.

    It opens at `threshold` failures, for a second at first and twice as long with every probe that fails, at most
    `longest_s`. When that time is over a single probe goes; its outcome closes or opens it again.
    """

    def __init__(self, threshold: int = 5, longest_s: float = 15.0) -> None:
        self._threshold = threshold
        self._longest_s = longest_s
        self._failures = 0
        self._open_until = 0.0
        self._probing = False

    @property
    def closed(self) -> bool:
        """Whether everything may go."""
        return self._failures < self._threshold

    def admit(self, now: float) -> float | None:
        """Return 0.0 for *go*, else the seconds until asking again makes sense; None is after the probe under way."""
        if self.closed:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        if self._probing:
            return None
        self._probing = True
        return 0.0

    def record(self, ok: bool, now: float) -> None:
        """Take in the outcome of an attempt that was let go."""
        self._probing = False
        if ok:
            self._failures = 0
            return
        self._failures += 1
        if not self.closed:
            self._open_until = now + min(self._longest_s, 2.0 ** min(self._failures - self._threshold, 16))

    def abandon(self) -> None:
        """Take in that an attempt ended without an outcome."""
        self._probing = False


class Attempt:
    """An attempt that a circuit let go; `failed` says that the target did not work."""

    def __init__(self) -> None:
        self.failed = False


class Circuit:
    """A breaker that callers wait at: a dead target holds up its own deliveries and uses up one attempt per probe."""

    def __init__(self, breaker: Breaker | None = None) -> None:
        self._breaker = breaker or Breaker()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[Attempt]:
        """Enter when the target may be tried."""
        clock = asyncio.get_running_loop().time
        while (wait_s := self._breaker.admit(clock())) != 0.0:
            try:
                await asyncio.wait_for(self._changed.wait(), wait_s)
            except TimeoutError:
                continue
        attempt = Attempt()
        try:
            yield attempt
        except BaseException:
            self._breaker.abandon()
            raise
        else:
            self._breaker.record(not attempt.failed, clock())
        finally:
            self._changed.set()
            self._changed = asyncio.Event()

"""How many a second."""

MOST_NAMES = 20_000
EPSILON_S = 1e-6
"""Below what a float of broker time can tell apart."""


class Rate:
    """A token bucket for each name, kept as the time when it will be full again (GCRA, ITU-T I.371).

    A bucket holds what `rate` gives in a second, one at least.
    """

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}
        self._sweep_at = MOST_NAMES

    def wait_s(self, name: str, rate: float, now: float) -> float:
        """Take a token and return 0.0, or return in how many seconds there will be one."""
        full_at = max(self._full_at.get(name, now), now)
        wait_s = full_at + 1 / rate - now - max(1.0, 1 / rate)
        if wait_s > EPSILON_S:
            return wait_s
        self._full_at[name] = full_at + 1 / rate
        if len(self._full_at) > self._sweep_at:
            self._full_at = {known: at for known, at in self._full_at.items() if at > now}
            self._sweep_at = 2 * max(MOST_NAMES, len(self._full_at))
        return 0.0

"""How fast a route may go."""


class Pace:
    """A limit of messages and of bytes per second; None is none. What is over is made up for by waiting."""

    def __init__(self, messages_per_s: float | None, bytes_per_s: float | None, now: float) -> None:
        self._rates = (messages_per_s, bytes_per_s)
        self._free_at = now

    def wait_s(self, now: float) -> float:
        """Return how long to wait before the next message."""
        return max(0.0, self._free_at - now)

    def spend(self, messages: int, size: int, now: float) -> None:
        """Note what was sent."""
        spans = [n / rate for n, rate in zip((messages, size), self._rates, strict=True) if rate is not None]
        self._free_at = max(self._free_at, now) + max(spans, default=0.0)

    @property
    def most(self) -> int | None:
        """How many messages may go at once: those of a second."""
        return None if self._rates[0] is None else max(1, int(self._rates[0]))

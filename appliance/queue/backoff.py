"""How long a failed attempt waits before the next."""

from collections.abc import Callable

Draw = Callable[[], float]
"""Returns a number from 0 to 1."""


def backoff_s(failures: int, first_s: float, most_s: float, draw: Draw) -> float:
    """Return the seconds to wait after that many failures in a row: doubled each time, half of it by chance.

    0.0 without a failure.
    """
    if failures < 1:
        return 0.0
    ceiling = min(most_s, first_s * 2.0 ** min(failures - 1, 64))
    return ceiling * (0.5 + 0.5 * draw())

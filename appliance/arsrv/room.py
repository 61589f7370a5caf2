"""How much memory the messages that are just arriving may take together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from appliance.errors import Unavailable


class NoRoom(Unavailable):
    """More arrives at once than this server can hold; nothing was stored."""

    code = "server-busy"
    hint = "Send it again in a second."


class Room:
    """A budget of bytes, shared by everything that claims some of it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    @contextmanager
    def claim(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes so many bytes more and raises NoRoom; all of it is given back at the end."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self.used + size > self._limit:
                raise NoRoom("Too many messages arrive at once.")
            self.used += size
            taken += size

        try:
            yield take
        finally:
            self.used -= taken

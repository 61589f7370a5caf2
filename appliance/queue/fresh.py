"""Work that has only just come: most of it is gone again before its tables are written, so they have less to write."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from appliance.queue.store import Counts, NewItem


class Hand(NamedTuple):
    """Who holds a lease, and since when (Unix time)."""

    holder: str
    since: float


class Fresh:
    """Items of which only `work` knows: they have no row in `body`, and none in `ready` or `lease` either.

    All of them are plain (no key, no times) and at their first attempt. `counts` are the accounts that are newer than
    those in the tables.
    """

    def __init__(self) -> None:
        self._ready: dict[str, deque[NewItem]] = {}
        self._held: dict[int, tuple[Hand, bytes]] = {}
        self.counts: dict[str, Counts] = {}

    def __bool__(self) -> bool:
        return bool(self._held or self._ready or self.counts)

    def clear(self) -> None:
        """Forget everything."""
        self._ready.clear()
        self._held.clear()
        self.counts.clear()

    def add(self, items: Iterable[NewItem]) -> None:
        """Items have come, each newer than all before."""
        for item in items:
            self._ready.setdefault(item.address, deque()).append(item)

    def take(self, address: str, hand: Hand, limit: int, room: int, *, first: bool) -> tuple[list[NewItem], bool]:
        """Put up to `limit` items, of at most `room` bytes, into a hand; the `first` one whatever its size.

        Returns them, and whether the next had no room.
        """
        waiting = self._ready.get(address)
        taken: list[NewItem] = []
        while waiting and len(taken) < limit:
            item = waiting[0]
            room -= len(item.body)
            if room < 0 and not first:
                return taken, True
            first = False
            taken.append(waiting.popleft())
            self._held[item.seq] = hand, item.body
        if waiting is not None and not waiting:
            del self._ready[address]
        return taken, False

    def finish(self, seqs: Sequence[int]) -> tuple[dict[Hand, list[int]], list[int]]:
        """Forget those of these items that are in a hand: which, by hand, and the others."""
        held = self._held
        found: dict[Hand, list[int]] = {}
        others: list[int] = []
        for seq in seqs:
            entry = held.pop(seq, None)
            if entry is None:
                others.append(seq)
            else:
                found.setdefault(entry[0], []).append(seq)
        return found, others

    def bodies(self) -> list[tuple[int, bytes]]:
        """Return number and body of each, in order."""
        ready = [(item.seq, item.body) for waiting in self._ready.values() for item in waiting]
        return sorted([*ready, *((seq, body) for seq, (_, body) in self._held.items())])

    def ready(self) -> list[int]:
        """Return the numbers of those in nobody's hands, in order."""
        return sorted(item.seq for waiting in self._ready.values() for item in waiting)

    def held(self) -> Iterator[tuple[Hand, list[int]]]:
        """Yield the hands, and the numbers in each, in order."""
        hands: dict[Hand, list[int]] = {}
        for seq, (hand, _) in self._held.items():
            hands.setdefault(hand, []).append(seq)
        for hand, seqs in hands.items():
            yield hand, sorted(seqs)

"""What a route of the bridge has in hand: by address, and there in the order of the store."""

from collections import deque
from collections.abc import Iterator

from appliance.queue import wire
from appliance.queue.address import Home, is_foreign
from appliance.queue.delivery import Delivery

MAX_BYTES = 2 * 2**20
"""In one message to the other side, unless a single body is larger."""


class Crate:
    """A delivery, and when it came (on the event loop's clock)."""

    __slots__ = ("at", "delivery")

    def __init__(self, delivery: Delivery, at: float) -> None:
        self.delivery = delivery
        self.at = at

    @property
    def size(self) -> int:
        """Return how much room it takes in a message, or a little more."""
        d = self.delivery
        return len(d.body) + len(d.id) + len(d.address) + len(d.origin) + 70 * len(d.onward.way) + 400

    def item(self, home: Home, now: float) -> wire.Item:
        """Return it as the other side gets it at this moment; one whose time has passed expires there."""
        d, passed = self.delivery, now - self.at
        onward = d.onward
        return wire.Item(
            d.address,
            d.id,
            delay_s=max(0.0, onward.delay_s - passed),
            expires_s=None if onward.expires_s is None else max(0.0, onward.expires_s - passed),
            max_attempts=onward.max_attempts,
            key=onward.key,
            origin=d.origin if is_foreign(d.origin) else f"{home.place}/{d.origin}",
            way=(*onward.way, home.place),
        )


class Transit:
    """An address that is busy on the other side rests, and holds up no other."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Crate]] = {}
        self._rests: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Crate]:
        for crates in self._waiting.values():
            yield from crates

    def add(self, crate: Crate) -> None:
        """Put it behind those for the same address."""
        self._waiting.setdefault(crate.delivery.address, deque()).append(crate)

    def next(self, now: float, most: int, most_bytes: int) -> list[Crate]:
        """Return what to send next; it stays in hand. Addresses take turns at being the first."""
        chosen: list[Crate] = []
        room = min(MAX_BYTES, most_bytes)
        for address in list(self._waiting):
            if self._rests.get(address, now) > now:
                continue
            self._rests.pop(address, None)
            crates = self._waiting[address] = self._waiting.pop(address)
            for crate in crates:
                if chosen and (len(chosen) >= most or crate.size > room):
                    return chosen
                chosen.append(crate)
                room -= crate.size
        return chosen

    def rest(self, address: str, until: float) -> None:
        """Send nothing to the address before `until`."""
        self._rests[address] = max(until, self._rests.get(address, until))

    def rested_at(self) -> float | None:
        """Return when the first address that rests may go on."""
        return min((at for address, at in self._rests.items() if address in self._waiting), default=None)

    def remove(self, gone: set[Crate]) -> None:
        """Let go of crates."""
        for address in {crate.delivery.address for crate in gone}:
            left = deque(crate for crate in self._waiting[address] if crate not in gone)
            if left:
                self._waiting[address] = left
            else:
                del self._waiting[address]
                self._rests.pop(address, None)

    def oldest_at(self) -> float | None:
        """Return when the oldest was published here (Unix time)."""
        return min((crates[0].delivery.published_at for crates in self._waiting.values()), default=None)

"""Who is connected: sessions, what they asked for, and what waits to be sent to them."""

from collections import Counter
from collections.abc import Iterator, Sequence, Sized
from typing import NamedTuple

from appliance.errors import Refused
from appliance.queue.address import is_foreign
from appliance.queue.auth import Grant
from appliance.queue.wire import Frames, Header, to_client

MAX_STALLED_BYTES = 32 * 2**20
MAX_STALLED_BYTES_IN_ALL = 4 * MAX_STALLED_BYTES
"""More than this held back for a peer that does not read, or for all such peers, and its session ends."""

MAX_HAND_BYTES = 16 * 2**20
"""A subscription with more than this in its hands gets nothing more, whatever its credit."""

SHARE = 4
"""A subscription has no more than this fraction of its credit in hand for one address of another cluster."""


MAX_ASKED = 1024
"""Subscriptions and served names of one session."""


HUSK_BYTES = 512
"""What a message costs beside its content, roughly: a peer that does not read can ask for very many small ones."""


def weight(frames: Sequence[Sized]) -> int:
    """Return what it costs to keep a message, in bytes."""
    return HUSK_BYTES + sum(map(len, frames))


class GateRoute(NamedTuple):
    """Where to send to a peer from outside: the gate that brings its messages, and the peer's route there."""

    gate: bytes
    peer: bytes


Route = bytes | GateRoute


class Session:
    """One client, from Hello to Bye. `user` is the authenticated key; the route is only where to send."""

    __slots__ = (
        "closed",
        "consumers",
        "grant",
        "last_seen",
        "route",
        "serving",
        "stalled",
        "user",
        "watchers",
    )

    def __init__(self, route: Route, user: str, grant: Grant, now: float) -> None:
        self.route = route
        self.user = user
        self.grant = grant
        self.last_seen = now
        self.consumers: dict[int, Consumer] = {}
        self.watchers: dict[int, Watcher] = {}
        self.serving: set[str] = set()
        self.stalled = Backlog()
        self.closed = False

    @property
    def name(self) -> str:
        """The name of its key."""
        return self.grant.name

    def expect_room(self, *, replaced: bool = False) -> None:
        """Raise Refused where it has all the subscriptions and served names that one session may have, and none of them
        is to be replaced.
        """
        if not replaced and len(self.consumers) + len(self.watchers) + len(self.serving) >= MAX_ASKED:
            hint = "Cancel some, or use wider patterns."
            raise Refused(f"{self.name} has {MAX_ASKED} subscriptions and served names already.", hint=hint)


class Consumer:
    """A subscription to work: never more than `credit` leases at a time."""

    __slots__ = ("away", "bytes", "credit", "number", "out", "pattern", "session")

    def __init__(self, session: Session, number: int, pattern: str, credit: int) -> None:
        self.session = session
        self.number = number
        self.pattern = pattern
        self.credit = credit
        self.out = 0
        self.bytes = 0
        self.away: Counter[str] = Counter()
        """Of what it has in hand, how many are for each address of other clusters."""

    def room(self, address: str, leased: int) -> int:
        """Return how many more deliveries it takes now from an address, of which `leased` are in anybody's hands.

        What is for another cluster goes through one pair of hands at a time, or a later message would overtake.
        """
        if not self.has_room:
            return 0
        room = self.credit - self.out
        if is_foreign(address):
            mine = self.away[address]
            return min(room, max(1, self.credit // SHARE) - mine) if mine == leased else 0
        return room

    @property
    def gone(self) -> bool:
        """Whether the subscription has ended; what it has in hand may be with the client still."""
        return self.session.consumers.get(self.number) is not self

    @property
    def has_room(self) -> bool:
        """Whether it takes anything now."""
        full = self.out >= self.credit or self.bytes > MAX_HAND_BYTES
        return not (full or self.session.closed or self.session.stalled)

    def empty(self) -> None:
        """It has nothing in hand."""
        self.out = self.bytes = 0
        self.away.clear()

    def took(self, address: str, number: int, size: int) -> None:
        """It has so many more in hand, of `size` bytes together."""
        self.out += number
        self.bytes += size
        if is_foreign(address):
            self.away[address] += number

    def gave(self, address: str, size: int) -> None:
        """It has one less in hand."""
        self.out -= 1
        self.bytes -= size
        if is_foreign(address):
            self.away[address] -= 1
            if not self.away[address]:
                del self.away[address]


class Watcher:
    """A subscription to events."""

    __slots__ = ("number", "pattern", "session")

    def __init__(self, session: Session, number: int, pattern: str) -> None:
        self.session = session
        self.number = number
        self.pattern = pattern


class Parcel:
    """A message to be sent.

    `leases` are those it hands out, `call` is the number of the call that it passes on; of two with the same `latest`,
    only the newer need arrive.
    """

    __slots__ = ("call", "frames", "latest", "leases", "route", "session")

    def __init__(
        self,
        route: Route,
        session: Session | None,
        frames: Frames,
        leases: Sequence[tuple[int, int]] = (),
        latest: tuple[int, str] | None = None,
        *,
        call: int = 0,
    ) -> None:
        self.route = route
        self.session = session
        self.frames = frames
        self.leases = leases
        self.latest = latest
        self.call = call

    @property
    def size(self) -> int:
        """Its bytes, roughly."""
        return weight(self.frames)


class Backlog:
    """What a slow peer has not taken yet, in order; of events only the newest of each topic."""

    __slots__ = ("_parcels", "bytes")

    def __init__(self) -> None:
        self._parcels: dict[object, Parcel] = {}
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._parcels)

    def __iter__(self) -> Iterator[Parcel]:
        return iter(self._parcels.values())

    def keep(self, parcel: Parcel) -> None:
        """Put a parcel behind the others, or in the place of the one that need not arrive any more."""
        key = parcel.latest or parcel
        older = self._parcels.get(key)
        self.bytes += parcel.size - (older.size if older is not None else 0)
        self._parcels[key] = parcel

    def sent(self) -> None:
        """Forget the first one."""
        self.bytes -= self._parcels.pop(next(iter(self._parcels))).size

    def clear(self) -> None:
        """Forget everything."""
        self._parcels.clear()
        self.bytes = 0


class Outbox:
    """What one turn of the broker has to say; it leaves only after the turn's transaction is on disk."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []

    def post(
        self,
        session: Session,
        header: Header,
        bodies: Sequence[bytes] = (),
        *,
        leases: Sequence[tuple[int, int]] = (),
        latest: tuple[int, str] | None = None,
        call: int = 0,
    ) -> None:
        """Queue a message for a session."""
        self.parcels.append(Parcel(session.route, session, to_client(header, bodies), leases, latest, call=call))

    def post_to_route(self, route: Route, header: Header) -> None:
        """Queue a message for a peer without a session."""
        self.parcels.append(Parcel(route, None, to_client(header)))

    def take(self) -> list[Parcel]:
        """Return what is queued and forget it."""
        parcels, self.parcels = self.parcels, []
        return parcels

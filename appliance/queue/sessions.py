"""Who is connected: sessions, what they asked for, and what waits to be sent to them."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from appliance.queue.auth import Grant
from appliance.queue.wire import Frames, Header, to_client

MAX_STALLED_BYTES = 32 * 2**20
"""More than this held back for a peer that does not read, and its session ends."""


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
        "stalled_bytes",
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
        self.stalled: deque[Parcel] = deque()
        self.stalled_bytes = 0
        self.closed = False

    @property
    def name(self) -> str:
        """The name of its key."""
        return self.grant.name


class Consumer:
    """A subscription to work: never more than `credit` leases at a time."""

    __slots__ = ("credit", "number", "out", "pattern", "session")

    def __init__(self, session: Session, number: int, pattern: str, credit: int) -> None:
        self.session = session
        self.number = number
        self.pattern = pattern
        self.credit = credit
        self.out = 0

    @property
    def room(self) -> int:
        """How many more deliveries it takes now."""
        return 0 if self.session.closed or self.session.stalled else self.credit - self.out


class Watcher:
    """A subscription to events."""

    __slots__ = ("number", "pattern", "session")

    def __init__(self, session: Session, number: int, pattern: str) -> None:
        self.session = session
        self.number = number
        self.pattern = pattern


class Parcel:
    """A message to be sent.

    `leases` are those it hands out; of two with the same `latest`, only the newer need arrive.
    """

    __slots__ = ("frames", "latest", "leases", "route", "session")

    def __init__(
        self,
        route: Route,
        session: Session | None,
        frames: Frames,
        leases: Sequence[tuple[int, int]] = (),
        latest: tuple[int, str] | None = None,
    ) -> None:
        self.route = route
        self.session = session
        self.frames = frames
        self.leases = leases
        self.latest = latest

    @property
    def size(self) -> int:
        """Its bytes, roughly."""
        return sum(map(len, self.frames))


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
    ) -> None:
        """Queue a message for a session."""
        self.parcels.append(Parcel(session.route, session, to_client(header, bodies), leases, latest))

    def post_to_route(self, route: Route, header: Header) -> None:
        """Queue a message for a peer without a session."""
        self.parcels.append(Parcel(route, None, to_client(header)))

    def take(self) -> list[Parcel]:
        """Return what is queued and forget it."""
        parcels, self.parcels = self.parcels, []
        return parcels

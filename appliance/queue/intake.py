"""Publishing: from an item on the wire to a row in the turn's transaction and a status for the publisher."""

from collections.abc import Sequence

from appliance.config import QueueLimit
from appliance.errors import ApplianceError
from appliance.queue import onward, wire
from appliance.queue.address import Home, is_foreign, matches
from appliance.queue.auth import KeyRing
from appliance.queue.clock import Clock
from appliance.queue.errors import NO_ROOM, BodyTooLarge, NoRoute, NotPermitted, RoutingLoop
from appliance.queue.leases import Lease
from appliance.queue.ledger import Ledger
from appliance.queue.rate import Rate
from appliance.queue.sessions import Outbox, Session
from appliance.queue.settings import BrokerSettings
from appliance.queue.store import Counts, NewItem, Store

BUSY_FULL_S = 5.0
BUSY_DEEP_S = 1.0
MAX_REMEMBERED = 20_000

NOTHING = Counts()
UNLIMITED = QueueLimit(pattern="*")


class Ack:
    """The answer to a request, filled in while the turn lasts."""

    __slots__ = ("full", "request", "session", "statuses", "troubles")

    def __init__(self, session: Session, request: int, items: int) -> None:
        self.session = session
        self.request = request
        self.statuses = [wire.STORED] * items
        self.troubles: list[wire.Trouble] = []
        self.full: set[str] = set()
        """Addresses that had no room for an item; they take no later one of this request, or it would overtake."""

    def refuse(self, index: int, error: ApplianceError, status: int = wire.REFUSED, retry_after_s: float = 0.0) -> None:
        """Say that the item at `index` was not taken, and why."""
        self.statuses[index] = status
        self.troubles.append(wire.Trouble(index, wire.fault_of(error), retry_after_s))

    def busy(self, index: int, why: str, retry_after_s: float) -> None:
        """Say that there is no room for the item now."""
        self.statuses[index] = wire.BUSY
        fault = wire.Fault("queue-busy", why, "Try again after the time given.", 503)
        self.troubles.append(wire.Trouble(index, fault, retry_after_s))

    def undo(self, why: str, retry_after_s: float) -> None:
        """Say of everything that was not refused for good that it did not happen."""
        refused = {t.index: t for t in self.troubles if self.statuses[t.index] == wire.REFUSED}
        self.troubles = list(refused.values())
        for index in range(len(self.statuses)):
            if index not in refused:
                self.busy(index, why, retry_after_s)

    def post(self, outbox: Outbox) -> None:
        """Queue the answer."""
        outbox.post(self.session, wire.Results(self.request, tuple(self.statuses), tuple(self.troubles)))


class Entrance:
    """What holds for a further item of one request that says the same address, until one finds no room."""

    __slots__ = ("address", "counts", "deepest", "origin")

    def __init__(self, address: str, origin: str, counts: Counts, deepest: int) -> None:
        self.address = address
        self.origin = origin
        self.counts = counts
        self.deepest = deepest


class Arrival:
    """An accepted item, whose answer depends on the store; `moved_from` ends with it."""

    __slots__ = ("ack", "index", "item", "moved_from")

    def __init__(self, item: NewItem, ack: Ack | None, index: int, moved_from: Lease | None = None) -> None:
        self.item = item
        self.ack = ack
        self.index = index
        self.moved_from = moved_from


class Intake:
    """Accepts items within the limits and the publisher's rights."""

    def __init__(self, home: Home, settings: BrokerSettings, clock: Clock, ledger: Ledger, ring: KeyRing) -> None:
        self._home = home
        self._ring = ring
        self._settings = settings
        self._clock = clock
        self._ledger = ledger
        self._arrivals: list[Arrival] = []
        self._names: dict[str, str] = {}
        self._limits: dict[str, QueueLimit] = {}
        self._rate = Rate()
        self.disk_full = False

    def canonical(self, text: str) -> str:
        """Return the canonical form of an address; raise BadAddress."""
        name = self._names.get(text)
        if name is None:
            if len(self._names) >= MAX_REMEMBERED:
                self._names.clear()
            name = self._names[text] = self._home.short(text)
        return name

    def accept_all(self, items: Sequence[wire.Item], bodies: Sequence[bytes], ack: Ack) -> None:
        """Do the same as `accept` for each item of a request, at a third of the price where they go to one address."""
        ledger, most, arrivals, wall = self._ledger, self._settings.max_bytes, self._arrivals, self._clock.wall()
        entrances: dict[str, Entrance] = {}
        for index, (item, body) in enumerate(zip(items, bodies, strict=True)):
            entrance = entrances.get(item.address)
            if (
                entrance is None
                or item.origin
                or item.way
                or entrance.counts.ready + entrance.counts.leased >= entrance.deepest
                or ledger.bytes + len(body) > most
            ):
                if not self.accept(item, body, ack, index):
                    entrances.clear()  # also those that write the same address in another way: none may overtake
                elif len(items) > 1 and not (item.origin or item.way):
                    self._open(item, ack.session, entrances)
                continue
            arrivals.append(Arrival(self._row(item, body, entrance.address, entrance.origin, wall), ack, index))
            ledger.add(entrance.counts, len(body))

    def _open(self, item: wire.Item, session: Session, entrances: dict[str, Entrance]) -> None:
        """Let those that follow an item to its address in, unless its limits look at the size or the time of each."""
        address = self.canonical(item.address)
        limit = self._limit_of(address)
        if limit.max_bytes is None and limit.rate is None:
            deepest = limit.max_depth or self._settings.max_depth
            counts = self._ledger.opened(address)
            entrances[item.address] = Entrance(address, self.origin(session, item, ""), counts, deepest)

    def accept(self, item: wire.Item, body: bytes, ack: Ack, index: int, moved_from: Lease | None = None) -> bool:
        """Take an item into this turn's transaction, or write into `ack` why not; return which."""
        session = ack.session
        try:
            address = self._permitted(session, item.address)
            origin = self.origin(session, item, "" if moved_from is None else moved_from.origin)
            self._expect_fit(address, len(body))
        except ApplianceError as error:
            ack.refuse(index, error)
            return False
        if not self._has_room(address, len(body), ack, index):
            return False
        row = self._row(item, body, address, origin, self._clock.wall())
        self._arrivals.append(Arrival(row, ack, index, moved_from))
        self._ledger.arrived(address, len(body))
        return True

    def _expect_fit(self, address: str, size: int) -> None:
        """Raise BodyTooLarge where not even an empty address, or an empty queue, has room for so much."""
        own, all_of_it = self._limit_of(address).max_bytes, self._settings.max_bytes
        if own is not None and size > own:
            raise BodyTooLarge(f"The body has {size} bytes; the address {address} holds at most {own}.")
        if size > all_of_it:
            raise BodyTooLarge(f"The body has {size} bytes; the queue holds at most {all_of_it}.")

    def _has_room(self, address: str, size: int, ack: Ack, index: int) -> bool:
        """Return whether the limits let an item in, or write into `ack` which does not."""
        counts = self._ledger.counts.get(address, NOTHING)
        limit = self._limit_of(address)
        deepest = limit.max_depth or self._settings.max_depth
        if address in ack.full:
            ack.busy(index, f"The address {address} had no room for one before.", BUSY_DEEP_S)
        elif self.disk_full:
            ack.busy(index, NO_ROOM, BUSY_FULL_S)
        elif self._ledger.bytes + size > self._settings.max_bytes:
            ack.busy(index, "The queue holds as many bytes as it may.", BUSY_FULL_S)
        elif counts.ready + counts.leased >= deepest:
            ack.busy(index, f"The address {address} holds as many messages as it may.", BUSY_DEEP_S)
        elif limit.max_bytes is not None and counts.bytes + size > limit.max_bytes:
            ack.busy(index, f"The address {address} holds as many bytes as it may.", BUSY_DEEP_S)
        elif limit.rate is not None and (wait_s := self._rate.wait_s(address, limit.rate, self._clock.now())):
            ack.busy(index, f"The address {address} takes {limit.rate:g} messages per second.", wait_s)
        else:
            return True
        ack.full.add(address)
        return False

    def _limit_of(self, address: str) -> QueueLimit:
        limit = self._limits.get(address)
        if limit is None:
            if len(self._limits) >= MAX_REMEMBERED:
                self._limits.clear()
            found = (known for known in self._settings.limits if matches(known.pattern, address))
            limit = self._limits[address] = next(found, UNLIMITED)
        return limit

    def _permitted(self, session: Session, text: str) -> str:
        address = self.canonical(text)
        if not session.grant.allows("publish", address):
            raise NotPermitted(f"{session.name} may not publish to {address}.")
        if is_foreign(address) and address.rpartition("/")[0] not in self._ring.routes:
            raise NoRoute(f"There is no route to {address}.")
        return address

    def origin(self, session: Session, item: wire.Item, moved: str) -> str:
        """Return whose message an item is, `moved` being the origin of the one that it takes the place of.

        A message that is moved out of the cluster is the mover's own, so that one which came from outside may be
        answered. Raises NotPermitted, RoutingLoop, BadAddress.
        """
        if not item.origin and not item.way:
            own = session.grant.access.origin or session.name
            return own if not moved or is_foreign(self.canonical(item.address)) else moved
        origin = self.canonical(item.origin)
        if self._home.place in item.way or not is_foreign(origin):
            raise RoutingLoop(f"The message {item.id} comes back to {self._home.place}.")
        if len(item.way) > onward.MAX_HOPS:
            raise RoutingLoop(f"The message {item.id} has been through {len(item.way)} clusters.")
        if not session.grant.allows("relay", origin):
            raise NotPermitted(f"{session.name} may not bring messages of {origin}.")
        return origin

    def _row(self, item: wire.Item, body: bytes, address: str, origin: str, wall: float) -> NewItem:
        plain = not (item.delay_s or item.not_before or item.key) and item.expires_s is None
        if plain and not is_foreign(address):
            most = item.max_attempts or self._settings.max_attempts
            return NewItem(self._ledger.take_seq(), origin, item.id, address, body, most, wall)
        now = self._clock.now()
        expires_at = wall + item.expires_s if item.expires_s is not None else None
        if is_foreign(address):
            return NewItem(
                seq=self._ledger.take_seq(),
                origin=origin,
                id=item.id,
                address=address,
                body=body,
                max_attempts=onward.UNCOUNTED,
                published_at=wall,
                expires_at=expires_at,
                waybill=onward.written(item, now),
            )
        return NewItem(
            seq=self._ledger.take_seq(),
            origin=origin,
            id=item.id,
            address=address,
            body=body,
            max_attempts=item.max_attempts or self._settings.max_attempts,
            published_at=wall,
            due=now + item.delay_s if item.delay_s else None,
            not_before=item.not_before if item.not_before and item.not_before > wall else None,
            expires_at=expires_at,
            key=item.key,
        )

    def add_own(self, origin: str, message: str, address: str, body: bytes) -> None:
        """Take in a message of the broker's own, whatever the limits."""
        item = wire.Item(address, message)
        self._arrivals.append(Arrival(self._row(item, body, address, origin, self._clock.wall()), None, 0))
        self._ledger.arrived(address, len(body))

    def store(self, store: Store) -> Sequence[Arrival]:
        """Put everything accepted into the transaction; return it, with what was a duplicate marked in its answer."""
        arrivals, self._arrivals = self._arrivals, []
        if not arrivals:
            return ()
        answers = store.put([arrival.item for arrival in arrivals])
        if all(answers):
            return arrivals
        for arrival, stored in zip(arrivals, answers, strict=True):
            if not stored:
                self._ledger.turned_away(arrival.item.address, len(arrival.item.body))
                if arrival.ack is not None:
                    arrival.ack.statuses[arrival.index] = wire.DUPLICATE
        return arrivals

"""Handing out work: which address has something for whom."""

from collections import OrderedDict

from appliance.queue import onward, wire
from appliance.queue.address import matches
from appliance.queue.clock import Clock
from appliance.queue.leases import Lease, LeaseTable
from appliance.queue.ledger import Ledger
from appliance.queue.sessions import Consumer, Outbox
from appliance.queue.store import Store, TakenItem

MAX_TAKE = 256
MAX_TAKE_BYTES = 4 * 2**20
"""Of one address for one consumer, before others have their turn."""

MAX_TURN = 4096
MAX_TURN_BYTES = 16 * 2**20
"""Of everything in one transaction; what is left over waits for the next."""


class Dispatch:
    """Goes round the consumers, and for each of them round the addresses that may have something for it.

    So neither a long queue nor one that nobody takes from holds up the others.
    """

    def __init__(self, clock: Clock, ledger: Ledger, leases: LeaseTable, lease_s: float) -> None:
        self._clock = clock
        self._ledger = ledger
        self._leases = leases
        self._lease_s = lease_s
        self.consumers: list[Consumer] = []
        self._by_address: dict[str, list[Consumer]] = {}
        self._changed: dict[str, None] = {}
        self._rounds: OrderedDict[Consumer, OrderedDict[str, None]] = OrderedDict()
        """By consumer the addresses to look at, both in the order in which they are to have their turn."""
        self.left_over = False
        """Whether a turn ended before everything was handed out."""

    def add(self, consumer: Consumer) -> None:
        """Let a consumer take part."""
        self.consumers.append(consumer)
        self._by_address.clear()
        for address, counts in self._ledger.counts.items():
            if counts.ready and matches(consumer.pattern, address):
                self._look_at(consumer, address)

    def remove(self, consumer: Consumer) -> None:
        """Hand nothing more to a consumer."""
        self.consumers.remove(consumer)
        self._by_address.clear()
        self._rounds.pop(consumer, None)

    def _look_at(self, consumer: Consumer, address: str) -> None:
        self._rounds.setdefault(consumer, OrderedDict()).setdefault(address)

    def changed(self, address: str) -> None:
        """Look at the address in this turn: an item arrived, was settled, or became due."""
        self._changed[address] = None

    def consumers_of(self, address: str) -> list[Consumer]:
        """Return who takes work from the address, who was served last at the end."""
        found = self._by_address.get(address)
        if found is None:
            found = self._by_address[address] = [c for c in self.consumers if matches(c.pattern, address)]
        return found

    def hand_out(self, store: Store, outbox: Outbox) -> None:
        """Lease what can be leased, as much as goes into a turn, and queue the deliveries."""
        for address in self._changed:
            if self._ledger.of(address).ready:
                for consumer in self.consumers_of(address):
                    self._look_at(consumer, address)
        self._changed.clear()
        items, size = MAX_TURN, MAX_TURN_BYTES
        going = True
        while going and items > 0 and size > 0:
            going = False
            for consumer in list(self._rounds):
                address, room = self._next_for(consumer)
                if room and items > 0 and size > 0:
                    taken = self._serve(consumer, address, min(room, items, MAX_TAKE), store, outbox)
                    items -= len(taken)
                    size -= sum(len(item.body) for item in taken)
                    going = True
        self.left_over = going

    def _next_for(self, consumer: Consumer) -> tuple[str, int]:
        """Return the address whose turn it is, and how many items the consumer has room for; 0 where there is none."""
        round_ = self._rounds[consumer]
        for _ in range(len(round_) if consumer.has_room else 0):
            address = next(iter(round_))
            counts = self._ledger.of(address)
            room = consumer.room(address, counts.leased)
            if counts.ready and room > 0:
                return address, room
            if counts.ready:
                round_.move_to_end(address)
            else:
                del round_[address]
        if not round_:
            del self._rounds[consumer]
        return "", 0

    def _serve(self, consumer: Consumer, address: str, limit: int, store: Store, outbox: Outbox) -> list[TakenItem]:
        """Give one consumer its share of one address; both are last in their rounds then."""
        taken, more = store.take(address, consumer.session.name, limit, MAX_TAKE_BYTES, self._clock.wall())
        others = self.consumers_of(address)
        others.append(others.pop(others.index(consumer)))
        self._rounds.move_to_end(consumer)
        if more:
            self._rounds[consumer].move_to_end(address)
        else:
            for other in others:
                if other in self._rounds:
                    self._rounds[other].pop(address, None)
        if taken:
            self._deliver(consumer, address, taken, outbox)
        return taken

    def _deliver(self, consumer: Consumer, address: str, taken: list[TakenItem], outbox: Outbox) -> None:
        now, wall = self._clock.now(), self._clock.wall()
        until = now + self._lease_s
        session = consumer.session
        holder = session.name
        self._leases.add(
            [
                Lease(
                    t.seq, t.fence, t.origin, t.id, address, t.attempt, t.max_attempts, holder, len(t.body), until,
                    consumer,
                )
                for t in taken
            ]
        )  # fmt: skip
        consumer.took(address, len(taken), sum([len(t.body) for t in taken]))
        self._ledger.leased(address, len(taken))
        handed = [
            wire.Handed(
                (t.seq, t.fence), t.id, t.origin, address, t.attempt, t.published_at,
                None if t.waybill is None else onward.handed(t.waybill, t.expires_at, now, wall),
            )
            for t in taken
        ]  # fmt: skip
        outbox.post(
            session,
            wire.Deliver(consumer.number, tuple(handed)),
            [t.body for t in taken],
            leases=[item.token for item in handed],
        )

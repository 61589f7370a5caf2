"""Handing out work: which address has something for whom."""

from appliance.queue import onward, wire
from appliance.queue.address import matches
from appliance.queue.clock import Clock
from appliance.queue.leases import Lease, LeaseTable
from appliance.queue.ledger import Ledger
from appliance.queue.sessions import Consumer, Outbox
from appliance.queue.store import Store, TakenItem

MAX_TAKE = 256
MAX_TAKE_BYTES = 4 * 2**20


class Dispatch:
    """Looks only at addresses where something changed, and goes round their consumers in turn."""

    def __init__(self, clock: Clock, ledger: Ledger, leases: LeaseTable, lease_s: float) -> None:
        self._clock = clock
        self._ledger = ledger
        self._leases = leases
        self._lease_s = lease_s
        self.consumers: list[Consumer] = []
        self._by_address: dict[str, list[Consumer]] = {}
        self._changed: set[str] = set()
        self._starved: set[str] = set()

    def add(self, consumer: Consumer) -> None:
        """Let a consumer take part."""
        self.consumers.append(consumer)
        self._by_address.clear()
        self._changed.update(address for address, counts in self._ledger.counts.items() if counts.ready)

    def remove(self, consumer: Consumer) -> None:
        """Hand nothing more to a consumer."""
        self.consumers.remove(consumer)
        self._by_address.clear()

    def changed(self, address: str) -> None:
        """Look at the address in this turn: an item arrived, was settled, or became due."""
        self._changed.add(address)

    def consumers_of(self, address: str) -> list[Consumer]:
        """Return who takes work from the address."""
        found = self._by_address.get(address)
        if found is None:
            found = self._by_address[address] = [c for c in self.consumers if matches(c.pattern, address)]
        return found

    def hand_out(self, store: Store, outbox: Outbox) -> None:
        """Lease what can be leased and queue the deliveries."""
        waiting = self._changed | self._starved
        self._changed, self._starved = set(), set()
        for address in sorted(waiting):
            while self._ledger.of(address).ready:
                consumer = self._next_consumer(address)
                if consumer is None:
                    self._starved.add(address)
                    break
                limit = min(consumer.room(address, self._ledger.of(address).leased), MAX_TAKE)
                taken, more = store.take(address, consumer.session.name, limit, MAX_TAKE_BYTES, self._clock.wall())
                if taken:
                    self._deliver(consumer, address, taken, outbox)
                if not more:
                    break

    def _next_consumer(self, address: str) -> Consumer | None:
        """Return the next one in turn that has room."""
        consumers = self.consumers_of(address)
        leased = self._ledger.of(address).leased
        for index, consumer in enumerate(consumers):
            if consumer.room(address, leased) > 0:
                consumers.append(consumers.pop(index))
                return consumer
        return None

    def _deliver(self, consumer: Consumer, address: str, taken: list[TakenItem], outbox: Outbox) -> None:
        now, wall = self._clock.now(), self._clock.wall()
        until = now + self._lease_s
        session = consumer.session
        for t in taken:
            self._leases.add(
                Lease(
                    t.seq,
                    t.fence,
                    t.origin,
                    t.id,
                    address,
                    t.attempt,
                    t.max_attempts,
                    session.name,
                    len(t.body),
                    until,
                    consumer,
                )
            )
            consumer.took(address, len(t.body))
        self._ledger.leased(address, len(taken))
        handed = tuple(
            wire.Handed(
                (t.seq, t.fence), t.id, t.origin, address, t.attempt, t.published_at,
                None if t.waybill is None else onward.handed(t.waybill, t.expires_at, now, wall),
            )
            for t in taken
        )  # fmt: skip
        outbox.post(
            session,
            wire.Deliver(consumer.number, handed),
            [t.body for t in taken],
            leases=[item.token for item in handed],
        )

"""Work items: published, leased, settled, given back, buried. All of a turn's changes are one transaction."""

import logging
import math

import msgspec

from appliance.contracts.notice import Notice
from appliance.errors import ApplianceError
from appliance.queue import wire
from appliance.queue.address import Home, is_foreign
from appliance.queue.auth import KeyRing
from appliance.queue.backoff import Draw, backoff_s
from appliance.queue.clock import Clock
from appliance.queue.dispatch import Dispatch
from appliance.queue.errors import LeaseLost, NotPermitted
from appliance.queue.intake import Ack, Intake
from appliance.queue.leases import Lease, LeaseTable
from appliance.queue.ledger import Ledger
from appliance.queue.sessions import Consumer, Outbox, Route, Session
from appliance.queue.settings import BrokerSettings
from appliance.queue.store import Given, Record, Snapshot, State, Store

log = logging.getLogger(__name__)

NOTICES = "notice.mail"
BROKER_ORIGIN = "queue"
FORGET_AT_ONCE = 2000
EXPIRE_AT_ONCE = 2000
CLOCK_EVERY_S = 1.0
"""How often at most broker time goes on record; a restart makes a delay longer by no more than this."""
CLOCK_AT_REST_S = 10.0
"""The same while nothing else is put on record."""
LEAP_S = 60.0
"""With so much more on the wall clock than on the other it was set."""
MAX_NOTED = 8192
"""Items taken in before a turn ends."""


class Ending(msgspec.Struct):
    """A lease that ends in this turn.

    `counted` is false where the attempt never began, `lapsed` where nobody settled it.
    """

    lease: Lease
    reason: str
    delay_s: float | None = None
    counted: bool = True
    lapsed: bool = False
    rejected: bool = False

    @property
    def failures(self) -> int:
        """How many attempts the message has failed; one lapse may be the fault of a consumer, so it does not count."""
        return self.lease.attempt - self.lapsed if self.counted else 0


def _by_address(leases: list[Lease]) -> dict[str, tuple[int, int]]:
    """Return how many there are of each address, and their bytes."""
    found: dict[str, tuple[int, int]] = {}
    for lease in leases:
        number, size = found.get(lease.address, (0, 0))
        found[lease.address] = number + 1, size + lease.size
    return found


class Work:
    """The broker's work desk. `handle_*` only note what is wanted; `run_turn` makes it so in the store."""

    def __init__(
        self,
        store: Store,
        home: Home,
        settings: BrokerSettings,
        outbox: Outbox,
        *,
        clock: Clock,
        ring: KeyRing,
        draw: Draw,
    ) -> None:
        self._store = store
        self._home = home
        self._settings = settings
        self._outbox = outbox
        self._clock = clock
        self._ring = ring
        self._draw = draw
        snapshot = store.load()
        clock.resume(snapshot.clock)
        self._looked = clock.now(), clock.wall()
        self._forget_from = 0.0
        self._begin(snapshot, LeaseTable())

    def _begin(self, snapshot: Snapshot, before: LeaseTable) -> None:
        """Begin with what is on disk; leases that were known `before` stay with their consumers."""
        clock = self._clock
        self._later = Outbox()
        """What may leave once the turn is on disk."""
        self.ledger = Ledger(snapshot)
        self.leases = LeaseTable()
        until = clock.now() + self._settings.lease_s
        for h in snapshot.held:
            lease = Lease(
                h.seq, h.fence, h.origin, h.id, h.address, h.attempt, h.max_attempts, h.holder, h.size, until, None
            )
            known = before.known((h.seq, h.fence))
            if known is not None:
                lease.until = known.until
                if known.consumer is not None:
                    lease.consumer = known.consumer
                    known.consumer.took(h.address, 1, h.size)
            self.leases.add([lease])
        self.intake = Intake(self._home, self._settings, clock, self.ledger, self._ring)
        self.dispatch = Dispatch(clock, self.ledger, self.leases, self._settings.lease_s)
        for address, counts in self.ledger.counts.items():
            if counts.ready:
                self.dispatch.changed(address)
        self._acks: list[Ack] = []
        self._noted = 0
        self._finished: list[Lease] = []
        self._endings: list[Ending] = []
        self._doubtful: list[tuple[Ack, int, wire.Outcome, wire.Item | None]] = []
        self._next_due, self._next_wall = self._store.next_times()
        self._clock_noted = snapshot.clock
        self._cut_short = False

    def handle_publish(self, session: Session, header: wire.Publish, bodies: wire.Frames) -> None:
        """Take items in; the answer goes out when the turn is on disk."""
        ack = Ack(session, header.request, len(bodies))
        self._noted += len(bodies)
        self.intake.accept_all(header.items, bodies, ack)
        self._acks.append(ack)

    def handle_move(self, session: Session, header: wire.Move, bodies: wire.Frames) -> None:
        """Take the next stage in and end the delivery with it."""
        ack = Ack(session, header.request, 1)
        self._acks.append(ack)
        lease = self.leases.find(*header.token, session.name)
        if lease is None:
            self._doubtful.append((ack, 0, wire.Outcome(header.token, wire.DONE), header.item))
        elif self.intake.accept(header.item, bodies[0], ack, 0, lease):
            self.leases.end(lease)

    def handle_settle(self, session: Session, header: wire.Settle, _bodies: wire.Frames) -> None:
        """End deliveries as the consumer says."""
        ack = Ack(session, header.request, len(header.items))
        self._noted += len(header.items)
        self._acks.append(ack)
        name = session.name
        for index, outcome in enumerate(header.items):
            lease = self.leases.find(*outcome.token, name)
            if lease is None:
                self._doubtful.append((ack, index, outcome, None))
                continue
            self.leases.end(lease)
            if outcome.outcome == wire.DONE:
                self._finished.append(lease)
            else:
                self._endings.append(
                    Ending(
                        lease, outcome.reason, outcome.delay_s, counted=outcome.outcome != wire.RELEASE,
                        rejected=outcome.outcome == wire.REJECT,
                    )
                )  # fmt: skip

    def handle_consume(self, session: Session, header: wire.Consume, _bodies: wire.Frames) -> None:
        """Start a subscription; leases the consumer still holds from before count against its credit."""
        ack = Ack(session, header.request, 1)
        try:
            session.expect_room(replaced=header.subscription in session.consumers)
            pattern = self._home.short_pattern(header.pattern)
            if not session.grant.allows("consume", pattern):
                raise NotPermitted(f"{session.name} may not consume from {pattern}.")
        except ApplianceError as error:
            ack.refuse(0, error)
            ack.post(self._outbox)
            return
        ack.post(self._outbox)
        self.cancel(session, header.subscription)
        consumer = session.consumers[header.subscription] = Consumer(
            session, header.subscription, pattern, header.credit
        )
        for seq, fence in header.held:
            lease = self.leases.find(seq, fence, session.name)
            if lease is not None and (lease.consumer is None or lease.consumer.gone):
                lease.consumer = consumer
                consumer.took(lease.address, 1, lease.size)
        self.extend(session, header.held)
        self.dispatch.add(consumer)

    def cancel(self, session: Session, number: int) -> None:
        """End a subscription; its leases run on."""
        consumer = session.consumers.pop(number, None)
        if consumer is not None:
            self.dispatch.remove(consumer)

    def extend(self, session: Session, held: tuple[wire.Token, ...]) -> None:
        """Renew the leases that the consumer says it works on."""
        until = self._clock.now() + self._settings.lease_s
        for seq, fence in held:
            lease = self.leases.find(seq, fence, session.name)
            if lease is not None:
                lease.until = until

    def leave(self, session: Session, *, give_back: bool) -> None:
        """End a session's subscriptions; with `give_back` its leases too, else they lapse in their time."""
        for number in list(session.consumers):
            self.cancel(session, number)
        if give_back:
            self.give_back(session.route, session.user)

    def give_back(self, route: Route, user: str) -> None:
        """End the leases that a peer has in hand."""
        for lease in self.leases.held_by(route, user):
            self.leases.end(lease)
            self._endings.append(Ending(lease, "the consumer left", lapsed=True))

    def withdraw(self) -> None:
        """Take back what is in the hands of a name that may not have it any more, whichever session it got it in."""
        for lease in self.leases.refused(lambda holder, address: self._ring.may(holder, "consume", address)):
            self.leases.end(lease)
            self._endings.append(Ending(lease, "the consumer lost its right", lapsed=True))

    def undelivered(self, tokens: tuple[wire.Token, ...], session: Session) -> None:
        """Take back what could not be sent: nobody has seen it, so the attempt does not count."""
        for seq, fence in tokens:
            lease = self.leases.find(seq, fence, session.name)
            if lease is not None:
                self.leases.end(lease)
                self._endings.append(Ending(lease, "not delivered", counted=False, lapsed=True))

    @property
    def laden(self) -> bool:
        """Whether a turn has enough to do already."""
        return self._noted >= MAX_NOTED

    def next_time(self) -> float | None:
        """Return the broker time at which there is something to do, None if nothing waits."""
        if self.dispatch.left_over:
            return self._clock.now()
        times = [at for at in (self._next_due, self.leases.next_time()) if at is not None]
        if self._next_wall is not None:
            times.append(self._clock.now() + max(0.0, self._next_wall - self._clock.wall()))
        return min(times, default=None)

    def look_at_times(self) -> None:
        """Find out anew when the next item becomes due, begins or expires: some were changed from outside."""
        self._next_due, self._next_wall = self._store.next_times()

    def run_turn(self, *, probe: bool = False) -> None:
        """Bring everything noted into one transaction; the caller commits. Raises StoreFull, StoreFailed.

        A `probe` hands nothing out, and writes something in any case: has the store room?
        """
        for lease in self.leases.lapsed(self._clock.now()):
            self.leases.end(lease)
            self._endings.append(Ending(lease, "the lease lapsed", lapsed=True))
        self._end_all()
        self.store_arrivals()
        self._check_doubtful()
        self._pass_time()
        for ack in self._acks:
            ack.post(self._later)
        if not probe:
            self.dispatch.hand_out(self._store, self._later)
        self._note_progress(always=probe)

    def committed(self) -> None:
        """Hear that the turn is on disk: now it can be told."""
        self._acks.clear()
        self._noted = 0
        self.leases.ended.clear()
        self._outbox.parcels += self._later.take()

    def undo(self, why: str, retry_after_s: float) -> None:
        """Take the turn back; who asked for something hears *busy*, subscriptions and leases are as they were."""
        self._store.rollback()
        for ack in self._acks:
            ack.undo(why, retry_after_s)
            ack.post(self._outbox)
        consumers = self.dispatch.consumers
        for consumer in consumers:
            consumer.empty()
        self._begin(self._store.load(), self.leases)
        for consumer in consumers:
            self.dispatch.add(consumer)

    def store_arrivals(self) -> None:
        """Bring what was published into the transaction: from here on repeats are not counted any more."""
        arrivals = self.intake.store(self._store)
        if not arrivals:
            return
        items = [arrival.item for arrival in arrivals]
        due = min((item.due for item in items if item.due is not None), default=None)
        if due is not None and (self._next_due is None or due < self._next_due):
            self._next_due = due
        walls = [at for item in items for at in (item.not_before, item.expires_at) if at is not None]
        if walls and (self._next_wall is None or min(walls) < self._next_wall):
            self._next_wall = min(walls)
        for address in dict.fromkeys([item.address for item in items]):
            self.dispatch.changed(address)
        self._finish([arrival.moved_from for arrival in arrivals if arrival.moved_from is not None])

    def _finish(self, leases: list[Lease]) -> None:
        if leases:
            self._store.finish([lease.seq for lease in leases], self._clock.wall())
            for address, (number, size) in _by_address(leases).items():
                self.ledger.done(address, number, size)
                self.dispatch.changed(address)

    def _end_all(self) -> None:
        finished, self._finished = self._finished, []
        self._finish(finished)
        endings, self._endings = self._endings, []
        given: list[Given] = []
        records: list[Record] = []
        wall, now = self._clock.wall(), self._clock.now()
        for ending in endings:
            lease = ending.lease
            if ending.counted:
                dead = ending.rejected or lease.attempt >= lease.max_attempts
                what = "rejected" if ending.rejected else "lapsed" if ending.lapsed else "retried"
                records.append(Record(lease.seq, wall, lease.attempt, lease.holder, what, ending.reason))
                if dead:
                    self._bury(ending, wall)
                    continue
            delay_s = self._backoff_s(ending.failures) if ending.delay_s is None else ending.delay_s
            if is_foreign(lease.address):
                delay_s = 0.0  # or those behind it would overtake
            due = now + delay_s if delay_s else None
            attempt = lease.attempt if ending.counted else lease.attempt - 1
            given.append(Given(lease.seq, lease.fence + ending.lapsed, attempt, due, ending.reason))
            self.ledger.given_back(lease.address)
            self.dispatch.changed(lease.address)
        if given:
            self._store.give_back(given, wall)
            self._next_due, self._next_wall = self._store.next_times()
        if records:
            self._store.write_history(records)

    def _backoff_s(self, failures: int) -> float:
        return backoff_s(failures, self._settings.retry_first_s, self._settings.retry_most_s, self._draw)

    def _bury(self, ending: Ending, wall: float) -> None:
        lease = ending.lease
        self._store.bury(lease.seq, lease.fence + ending.lapsed, wall, ending.reason)
        self.ledger.died(lease.address)
        self.dispatch.changed(lease.address)
        if lease.address == NOTICES:
            return
        text = (
            f"The message {lease.id} from {lease.origin} could not be processed at {lease.address} "
            "and was set aside.\n\n"
            f"Attempts: {lease.attempt} of {lease.max_attempts}\n"
            f"Last consumer: {lease.holder}\n"
            f"Reason: {ending.reason}\n"
        )
        notice = msgspec.msgpack.encode(Notice(subject=f"Dead letter at {lease.address}", body=text, at=wall))
        self.intake.add_own(BROKER_ORIGIN, f"dead-letter-{lease.seq}-{lease.fence}", NOTICES, notice)

    def _check_doubtful(self) -> None:
        """A settle without a running lease is fine if it is a repeat of the one that ended that lease."""
        doubtful, self._doubtful = self._doubtful, []
        for ack, index, outcome, moved in doubtful:
            seq, fence = outcome.token
            found = self._store.find(seq)
            wanted = {wire.DONE: {State.DONE}, wire.REJECT: {State.DEAD}}.get(
                outcome.outcome, {State.READY, State.DEAD}
            )
            if (
                found is None
                or found.state not in wanted
                or (found.fence, found.holder) != (fence, ack.session.name)
                or (moved is not None and not self._knows(ack.session, moved, found.origin))
            ):
                ack.refuse(index, LeaseLost(f"The lease {seq}:{fence} has passed."), wire.STALE)
            elif moved is not None:
                ack.statuses[index] = wire.DUPLICATE

    def _knows(self, session: Session, moved: wire.Item, origin: str) -> bool:
        try:
            return self._store.knows(self.intake.origin(session, moved, origin), moved.id)
        except ApplianceError:
            return False

    def _pass_time(self) -> None:
        """Let items become due, begin, or expire, and forget the oldest settled ones."""
        now, wall = self._clock.now(), self._clock.wall()
        if (self._next_due is not None and self._next_due <= now) or (
            self._next_wall is not None and self._next_wall <= wall
        ):
            for address in self._store.wake(now, wall):
                self.dispatch.changed(address)
            for address, size in self._store.expire(wall, EXPIRE_AT_ONCE):
                self.ledger.expired(address, size)
                self.dispatch.changed(address)
            self._next_due, self._next_wall = self._store.next_times()
        excess = self.ledger.settled_rows - self._settings.keep_rows
        if excess > 0:
            if not self._cut_short:
                self._cut_short = True
                log.warning("more than %d messages ended in %.0f s: the first of them are forgotten before their time",
                            self._settings.keep_rows, self._settings.keep_s)  # fmt: skip
            self.ledger.settled_rows -= self._store.forget(math.inf, min(excess, FORGET_AT_ONCE))

    @property
    def remembered_s(self) -> float:
        """How long ago a message may have ended and be sure to be remembered."""
        keep_s = self._settings.keep_s
        since = self._store.remembered_since() if self.ledger.settled_rows >= self._settings.keep_rows else None
        return keep_s if since is None else max(0.0, min(keep_s, self._clock.wall() - since))

    def forget_old(self) -> None:
        """Drop settled items that were kept long enough: nothing is that because the wall clock was set forward."""
        now, wall = self._clock.now(), self._clock.wall()
        before, self._looked = self._looked, (now, wall)
        if wall - before[1] > now - before[0] + LEAP_S:
            log.warning("the clock was set forward: for %.0f s nothing is forgotten", self._settings.keep_s)
            self._forget_from = now + self._settings.keep_s
        if now >= self._forget_from:
            self.ledger.settled_rows -= self._store.forget(wall - self._settings.keep_s, FORGET_AT_ONCE)

    def _note_progress(self, *, always: bool) -> None:
        now = self._clock.now()
        age = now - self._clock_noted
        if self._store.changed or always or (self._next_due is not None and age >= CLOCK_AT_REST_S):
            noting = age >= CLOCK_EVERY_S or always
            self._store.progress(now if noting else None, self.ledger.changed)
            self.ledger.changed.clear()
            if noting:
                self._clock_noted = now

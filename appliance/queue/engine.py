"""The broker without its sockets: messages in, messages out, one transaction a turn."""

import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.contracts.traffic import QueueStats
from appliance.queue import wire
from appliance.queue.address import Home
from appliance.queue.auth import Grant, KeyRing
from appliance.queue.backoff import Draw
from appliance.queue.calls import Calls
from appliance.queue.clock import Clock
from appliance.queue.errand import Errand
from appliance.queue.errors import NO_ROOM, StoreFull, WireError
from appliance.queue.events import Events
from appliance.queue.inspection import Meter, depths
from appliance.queue.intake import Ack
from appliance.queue.operations import Operations
from appliance.queue.sessions import GateRoute, Outbox, Parcel, Route, Session
from appliance.queue.settings import BrokerSettings
from appliance.queue.sparing import Sparing
from appliance.queue.store import Store
from appliance.queue.work import Work

log = logging.getLogger(__name__)

PAUSE_S = 2.0
"""A gap between two turns from which on we were not slow but stopped, and owe the consumers the time."""

HOUSEKEEPING_S = 0.5
COMPACT_PAGES = 500
FULL_PAUSE_S = 1.0
"""From a turn for which the store had no room to the next attempt."""
FULL_FOR_NEW_S = 3.0
"""Publishers wait for longer, so that what ends work, and makes room, goes first; and until the store has had what
room it waits for.
"""
Handler = Callable[[Session, Any, wire.Frames], None]


class Engine:
    """Knows no sockets and no threads: `handle` for each message, then `run_turn`, then send what it returns."""

    def __init__(
        self,
        store: Store,
        home: Home,
        settings: BrokerSettings,
        *,
        clock: Clock,
        ring: KeyRing,
        disk: Path,
        draw: Draw = random.random,
        next_key: str = "",
    ) -> None:
        self._store = store
        self._home = home
        self._settings = settings
        self._clock = clock
        self._ring = ring
        self._disk = disk
        self._next_key = next_key
        self._outbox = Outbox()
        self._sessions: dict[Route, Session] = {}
        self._epoch = os.urandom(8).hex()
        self._meter = Meter()
        self._sparing = Sparing(log, clock.now)
        self._disk_free = 0
        self._errand = Errand()
        self._events = Events(home, clock, self._outbox)
        self._work = Work(store, home, settings, self._outbox, clock=clock, ring=ring, draw=draw)
        self._operations = Operations(
            store, home, clock, self._work, self._errand,
            directory=disk, leave_free=settings.min_free_bytes, stats=self._stats,
        )  # fmt: skip
        self._calls = Calls(home, clock, self._outbox, self._operations.calls)
        self._full_until: float | None = None
        """Set while the store has no room: until then it is left alone."""
        self._shut, self._shut_until = False, 0.0
        self.parting: set[Route] = set()
        """Who has been told that the broker stops and has not said that it was heard."""
        self._last_turn = clock.now()
        self._kept_house = self._last_turn - HOUSEKEEPING_S
        self._handlers: dict[type[wire.Header], Handler] = {
            wire.Publish: self._work.handle_publish,
            wire.Move: self._work.handle_move,
            wire.Settle: self._work.handle_settle,
            wire.Consume: self._work.handle_consume,
            wire.Subscribe: self._events.handle_subscribe,
            wire.Emit: self._events.handle_emit,
            wire.Call: self._calls.handle_call,
            wire.Serve: self._calls.handle_serve,
            wire.Answer: self._calls.handle_answer,
            wire.Cancel: self._handle_cancel,
            wire.Heartbeat: self._handle_heartbeat,
            wire.Bye: self._handle_bye,
        }

    def handle(self, route: Route, user: str, frames: wire.Frames) -> None:
        """Take in one message; `user` is the authenticated key, and the only thing here that a peer cannot make up."""
        grant = self._grant_of(route, user)
        session = self._sessions.get(route)
        if grant is None:
            if session is not None:
                self._drop(session, give_back=True)
            return
        if session is not None and session.user != user:
            self._drop(session, give_back=False)
            session = None
        try:
            header, bodies = wire.from_client(frames)
        except WireError as error:
            self._sparing.tell(logging.WARNING, "%s sent what is not the protocol: %s", grant.name, error.message)
            if session is not None:
                self._drop(session, give_back=False)
            self._outbox.post_to_route(route, wire.Bye(error.code, error.message[:2000]))
            return
        if isinstance(header, wire.Hello):
            self._open(route, user, grant, session, header)
        elif session is not None:
            session.last_seen = self._clock.now()
            self._handle(session, header, bodies)
        elif not isinstance(header, wire.Bye):
            self._outbox.post_to_route(route, wire.Bye(wire.SESSION_UNKNOWN, "Say Hello first."))
        elif route in self.parting:
            self.parting.discard(route)
        else:
            self._work.give_back(route, user)  # its connection was gone before this was read, and the session with it

    def _handle(self, session: Session, header: wire.Header, bodies: wire.Frames) -> None:
        if self._full_until is not None and isinstance(header, wire.Publish | wire.Move | wire.Settle):
            ack = Ack(session, header.request, 1 if isinstance(header, wire.Move) else len(header.items))
            ack.undo(NO_ROOM, FULL_PAUSE_S)
            ack.post(self._outbox)
            return
        self._handlers[type(header)](session, header, bodies)

    def _grant_of(self, route: Route, user: str) -> Grant | None:
        return self._ring.find(user, outside=isinstance(route, GateRoute))

    def _open(self, route: Route, user: str, grant: Grant, old: Session | None, hello: wire.Hello) -> None:
        if old is not None:
            self._drop(old, give_back=False)
        session = self._sessions[route] = Session(route, user, grant, self._clock.now())
        self._sparing.tell(logging.INFO, "%s is here (%.100r)", grant.name, hello.software)
        s = self._settings
        broker = f"{self._home.lan}/{self._home.cluster}"
        rules = (s.heartbeat_s, s.lease_s, s.max_body)
        self._outbox.post(session, wire.Welcome(broker, grant.name, self._epoch, *rules, self._next_key))

    def _handle_cancel(self, session: Session, header: wire.Cancel, _bodies: wire.Frames) -> None:
        self._work.cancel(session, header.subscription)
        self._events.cancel(session, header.subscription)

    def _handle_heartbeat(self, session: Session, header: wire.Heartbeat, _bodies: wire.Frames) -> None:
        self._work.extend(session, header.held)
        self._outbox.post(session, wire.Heartbeat())

    def _handle_bye(self, session: Session, _header: wire.Bye, _bodies: wire.Frames) -> None:
        self._sparing.tell(logging.INFO, "%s has left", session.name)
        self._drop(session, give_back=True)

    def _drop(self, session: Session, *, give_back: bool, unsent: Sequence[Parcel] = ()) -> None:
        """End a session; what it was not sent goes to others, since nobody has seen it."""
        session.closed = True
        unsent = (*unsent, *session.stalled)
        session.stalled.clear()
        again = [(self._calls.take_back(parcel.call), parcel.frames[-1]) for parcel in unsent if parcel.call]
        for parcel in unsent:
            self._work.undelivered(tuple(parcel.leases), session)
        del self._sessions[session.route]
        self._work.leave(session, give_back=give_back)
        self._events.leave(session)
        self._calls.leave(session)
        for call, body in again:
            if call is not None:
                self._calls.pass_on_again(call, body)

    def undelivered(self, parcel: Parcel, *, gone: bool) -> None:
        """Hear that a parcel could not be sent; `gone` when its peer is not connected any more."""
        session = parcel.session
        if session is None:
            self.parting.discard(parcel.route)
            return
        if gone and not session.closed:
            self._drop(session, give_back=False, unsent=[parcel])
        else:
            self._work.undelivered(tuple(parcel.leases), session)

    def lost(self, route: Route) -> None:
        """Hear that what was sent there did not arrive; what the peer still has in hand it may yet settle."""
        session = self._sessions.get(route)
        if session is not None:
            self._drop(session, give_back=False)

    def drop_slow(self, session: Session) -> None:
        """End the session of a peer that does not read what it is sent."""
        if not session.closed:
            self._sparing.tell(logging.WARNING, "%s does not read; its session ends", session.name)
            self._drop(session, give_back=False)

    def keys_changed(self) -> None:
        """Let a new key list take effect on open sessions: whose key or rights are gone, is out at once."""
        for session in list(self._sessions.values()):
            grant = self._grant_of(session.route, session.user)
            if grant is None:
                log.warning("the key of %s was revoked", session.name)
                self._drop(session, give_back=True)
            elif grant is not session.grant:
                self._outbox.post_to_route(
                    session.route, wire.Bye(wire.SESSION_UNKNOWN, "The rights of this key have changed.")
                )
                self._drop(session, give_back=False)
        self._work.withdraw()

    @property
    def laden(self) -> bool:
        """Whether `run_turn` should come before more messages: it would take long otherwise."""
        return self._work.laden or self._events.laden

    def run_turn(self) -> list[Parcel]:
        """Do all that is due in one transaction, and return what to send once it is on disk, which it is by then.

        Raises StoreFailed, after which only a new start can tell what was stored.
        """
        now = self._clock.now()
        self._meter.turns += 1
        if now - self._last_turn > PAUSE_S:
            self._work.leases.postpone(now - self._last_turn)
            for session in self._sessions.values():
                session.last_seen += now - self._last_turn
        self._last_turn = now
        self._events.begin()
        self._calls.pass_time()
        try:
            self._keep_house(now)
            self._work.store_arrivals()
            self._calls.run_own()
            if self._full_until is None or self._full_until <= now or self._store.changed:
                lapse = self._work.leases.next_time()
                if lapse is not None and lapse <= now:
                    self._drop_silent(now)  # or it would be given again what it let lapse
                self._work.run_turn(probe=self._full_until is not None)
                self._commit()
            self._calls.committed()
            self._operations.after_commit()
        except StoreFull as error:
            self._undo(error)
        return self._outbox.take()

    def _commit(self) -> None:
        if self._store.changed:
            began = time.perf_counter()
            self._store.commit()
            self._meter.committed(time.perf_counter() - began)
        self._work.committed()
        if self._full_until is not None:
            log.warning("the store has room again")
            self._full_until = None

    def rest(self) -> None:
        """Use the time until the next message, after a turn's answers were sent. Raises StoreFailed."""
        if not self._store.changed:
            self._store.tidy()

    def next_time(self) -> float:
        """Return in how many seconds the next turn is due, if no message comes before."""
        if self._outbox.parcels:
            return 0.0
        work = self._work.next_time() if self._full_until is None else self._full_until
        times = [at for at in (work, self._calls.next_time()) if at is not None]
        now = self._clock.now()
        return max(0.0, min(min(times, default=now + HOUSEKEEPING_S), self._kept_house + HOUSEKEEPING_S) - now)

    def _keep_house(self, now: float) -> None:
        if now - self._kept_house < HOUSEKEEPING_S:
            return
        self._kept_house = now
        self._sparing.pass_time()
        self._store.tidy()
        room = os.statvfs(self._disk)
        self._disk_free = room.f_bavail * room.f_frsize
        self._shut = self._shut and (now < self._shut_until or self._store.waits_for_room)
        self._work.intake.disk_full = self._disk_free < self._settings.min_free_bytes or self._shut
        self._drop_silent(now)
        if self._full_until is None:
            if self._disk_free < 2 * self._settings.min_free_bytes:
                self._store.compact(COMPACT_PAGES)
            self._work.forget_old()

    def _drop_silent(self, now: float) -> None:
        silence = max(self._settings.lease_s, 3 * self._settings.heartbeat_s)
        for session in list(self._sessions.values()):
            if now - session.last_seen >= silence:
                line, silent_s = "%s has been silent for %.1f s; its session ends", now - session.last_seen
                self._sparing.tell(logging.WARNING, line, session.name, silent_s)
                self._drop(session, give_back=False)

    def _undo(self, error: StoreFull) -> None:
        """Undo the turn: what is on disk is the truth. All stay, and hear that what they wanted has not happened."""
        log.error("nothing of this turn was stored: %s", error.message)
        self._work.undo(NO_ROOM, FULL_PAUSE_S)
        now = self._clock.now()
        self._full_until, self._shut_until = now + FULL_PAUSE_S, now + FULL_FOR_NEW_S
        self._calls.undo(error)
        self._work.intake.disk_full = self._shut = True

    def say_bye(self) -> list[Parcel]:
        """End every session, because the broker stops, and return what to send; leases stay with who holds them."""
        for session in list(self._sessions.values()):
            self._outbox.post_to_route(session.route, wire.Bye(wire.STOPPING, "The broker stops; say Hello again."))
            self.parting.add(session.route)
            self._drop(session, give_back=False)
        return self.run_turn()

    def _stats(self) -> QueueStats:
        work, meter = self._work, self._meter
        return QueueStats(
            at=self._clock.wall(),
            depths=depths(work.ledger, work.dispatch),
            broker=self._home.place,
            routes=tuple(sorted(self._ring.routes)),
            clients=tuple(sorted({session.name for session in self._sessions.values()})),
            sessions=len(self._sessions),
            bytes=work.ledger.bytes,
            busy=work.intake.disk_full or self._full_until is not None or work.ledger.bytes >= self._settings.max_bytes,
            disk_free=self._disk_free,
            remembered=work.ledger.settled_rows,
            remembered_s=work.remembered_s,
            turns=meter.turns,
            commits=meter.commits,
            commit_s=meter.commit_s,
            commits_within=meter.commits_within,
        )

    def close(self) -> None:
        """End what runs beside the turns; before the store is closed."""
        self._errand.close()

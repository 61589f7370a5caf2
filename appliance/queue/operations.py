"""The broker's own calls: what an operator asks of the queue (appliance.contracts.letters)."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import msgspec

from appliance.contracts.letters import (
    BackedUp,
    Browse,
    Changed,
    Checked,
    Choice,
    Compact,
    Compacted,
    Letter,
    Line,
    Peek,
    Purge,
    Requeue,
    Tend,
)
from appliance.contracts.member import Ping, Pong
from appliance.contracts.traffic import Messages, QueueStats, RecentQuery
from appliance.errors import InvalidInput, NotFound, Unavailable
from appliance.queue.address import Home
from appliance.queue.calls import Later, OwnHandler
from appliance.queue.clock import Clock
from appliance.queue.errand import Errand
from appliance.queue.errors import CopyFailed, NotPermitted, StoreFull
from appliance.queue.inspection import STATE_NAMES, message_of
from appliance.queue.preview import kind_of
from appliance.queue.sessions import Session
from appliance.queue.store import State, Still, Store
from appliance.queue.work import Work

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

EVERYTHING = "*"
"""What a key must administer to tend the store as a whole."""
BACKUP = "backup.sqlite"


class Operations:
    """Each call does a bounded piece of work inside the turn in which it is answered, but for two kinds.

    What must not be inside a transaction is done by `after_commit`; what takes long, in the thread of an Errand.
    """

    def __init__(
        self, store: Store, home: Home, clock: Clock, work: Work, errand: Errand, *, directory: Path,
        leave_free: int, stats: Callable[[], QueueStats],
    ) -> None:  # fmt: skip
        self._store = store
        self._home = home
        self._clock = clock
        self._work = work
        self._errand = errand
        self._directory = directory
        self._leave_free = leave_free
        self._after: list[tuple[Later, Callable[[], None]]] = []
        self.calls: dict[str, OwnHandler] = {
            "queue.ping": _typed(Ping, lambda _session, _query: Pong(name="queue", pending=0, flows_revision=0)),
            "queue.stats": lambda _session, _body: stats(),
            "queue.recent": _typed(RecentQuery, self._recent),
            "queue.browse": _typed(Browse, self._browse),
            "queue.peek": _typed(Peek, self._peek),
            "queue.requeue": _typed(Requeue, self._requeue),
            "queue.purge": _typed(Purge, self._purge),
            "queue.backup": _typed(Tend, self._backup),
            "queue.check": _typed(Tend, self._check),
            "queue.compact": _typed(Compact, self._compact),
        }

    def after_commit(self) -> None:
        """Do what waits for the end of the transaction."""
        after, self._after = self._after, []
        for later, act in after:
            try:
                act()
            except StoreFull as error:
                later.set_exception(Unavailable(error.message, hint=error.advice))
            except CopyFailed as error:
                later.set_exception(error)
        self._errand.pass_on()

    def _recent(self, _session: Session, query: RecentQuery) -> Messages:
        only, without = (self._home.short_pattern(each) if each else each for each in (query.only, query.without))
        found = self._store.recent(query.limit, only, without)
        return Messages(messages=tuple(map(message_of, found)))

    def _browse(self, session: Session, query: Browse) -> Messages:
        pattern = self._permitted(session, query.address)
        found = self._store.browse(pattern, State(STATE_NAMES.index(query.state)), query.after, query.limit)
        return Messages(messages=tuple(map(message_of, found)))

    def _peek(self, session: Session, query: Peek) -> Letter:
        detail = self._store.look(query.seq)
        if detail is None:
            hint = "Messages that have ended well are forgotten after a while."
            raise NotFound(f"There is no message {query.seq}.", hint=hint)
        self._permitted(session, detail.address)
        log.info("%s looked into message %d at %s", _who(session, query.who), detail.seq, detail.address)
        return Letter(
            message=message_of(detail),
            kind=kind_of(detail.body),
            body=detail.body[: query.limit],
            history=tuple(
                Line(at=r.at, attempt=r.attempt, holder=r.holder, what=r.what, reason=r.reason) for r in detail.history
            ),
            key=detail.key,
            waits_s=0.0 if detail.due is None else max(0.0, detail.due - self._clock.now()),
            not_before=detail.not_before,
            expires_at=detail.expires_at,
        )

    def _requeue(self, session: Session, choice: Requeue) -> Changed:
        seqs = self._chosen(session, choice, State.DEAD)
        work = self._work
        requeued = self._store.requeue(seqs, self._clock.wall())
        for item in requeued:
            work.ledger.requeued(item.address)
            work.dispatch.changed(item.address)
        work.look_at_times()
        return self._changed(session, choice, seqs, len(requeued), "requeued")

    def _purge(self, session: Session, choice: Purge) -> Changed:
        seqs = self._chosen(session, choice, State(STATE_NAMES.index(choice.state)))
        work = self._work
        purged = self._store.purge(seqs, self._clock.wall())
        for item in purged:
            work.ledger.purged(item.address, item.size, item.was)
            work.dispatch.changed(item.address)
        return self._changed(session, choice, seqs, len(purged), "purged")

    def _chosen(self, session: Session, choice: Choice, state: State) -> list[int]:
        """Return the numbers of the messages that are meant and in that state, all of which the key may touch."""
        if bool(choice.seqs) == bool(choice.address):
            raise InvalidInput("Either numbers of messages or an address must be given.")
        if choice.address:
            pattern = self._permitted(session, choice.address)
            return [brief.seq for brief in self._store.browse(pattern, state, choice.after, choice.limit)]
        standings = {seq: self._store.find(seq) for seq in choice.seqs}
        for standing in standings.values():
            if standing is not None:
                self._permitted(session, standing.address)
        return [seq for seq, standing in standings.items() if standing is not None and standing.state is state]

    def _changed(self, session: Session, choice: Choice, seqs: Sequence[int], count: int, what: str) -> Changed:
        which = choice.address or f"{len(choice.seqs)} by number"
        log.info("%s %s %d message(s) (%s)", _who(session, choice.who), what, count, which)
        more = bool(choice.address) and len(seqs) == choice.limit
        return Changed(count=count, last=seqs[-1] if seqs else choice.after, more=more)

    def _backup(self, session: Session, tend: Tend) -> Later:
        self._permitted(session, EVERYTHING)
        at, who, path = self._clock.wall(), _who(session, tend.who), self._directory / BACKUP

        def copy(still: Still) -> BackedUp:
            size = still.copy(path, self._leave_free)
            log.info("%s made a backup of %d bytes at %s", who, size, path)
            return BackedUp(path=str(path), size=size, at=at)

        return self._send(copy)

    def _check(self, session: Session, tend: Tend) -> Later:
        self._permitted(session, EVERYTHING)
        who = _who(session, tend.who)

        def check(still: Still) -> Checked:
            problems = still.check()
            log.log(logging.ERROR if problems else logging.INFO, "%s checked the store: %s", who, problems or "sound")
            return Checked(problems=tuple(problems))

        return self._send(check)

    def _send(self, job: Callable[[Still], msgspec.Struct]) -> Later:
        later: Later = Future()
        self._after.append((later, lambda: self._errand.start(self._store.still, job, later)))
        return later

    def _compact(self, session: Session, query: Compact) -> Later:
        self._permitted(session, EVERYTHING)
        later: Later = Future()

        def compact() -> None:
            pages = self._store.compact(query.pages)
            log.info("%s gave %d page(s) of the store back", _who(session, query.who), pages)
            later.set_result(Compacted(pages=pages))

        self._after.append((later, compact))
        return later

    def _permitted(self, session: Session, pattern: str) -> str:
        """Return the pattern in its canonical form; raise NotPermitted where the key may not touch all of it."""
        canonical = self._home.short_pattern(pattern)
        if not session.grant.allows("administer", canonical):
            raise NotPermitted(f"{session.name} may not administer {canonical}.")
        return canonical


def _typed(kind: type[T], handle: Callable[[Session, T], msgspec.Struct | Later]) -> OwnHandler:
    """Return a handler of bodies; an empty one stands for the defaults."""
    decode = msgspec.msgpack.Decoder(kind).decode
    return lambda session, body: handle(session, decode(body or b"\x80"))


def _who(session: Session, person: str) -> str:
    return f"{person} at {session.name}" if person else session.name

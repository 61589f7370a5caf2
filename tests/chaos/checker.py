"""The invariants of the queue, as one pure function over a whole history and what the store holds when it is at rest.

Every rule is sound: it looks only at what is certain from outside. A message received late was perhaps leased early, an
answer that did not come says nothing, and a killed actor may have done what its last line says, or not.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import msgspec

from appliance.queue.store import Brief, State
from tests.chaos.history import (
    ClockMoved,
    Delivered,
    Line,
    Name,
    Operate,
    Operated,
    Publish,
    Published,
    Settle,
    Settled,
)

Token = tuple[int, int]
T = TypeVar("T")

BROKER = "queue"
NOTICES = "notice.mail"
NOTICE = "dead-letter-"
"""What a notice is called, before the number and the fence of the dead letter."""
CLOCK_SLACK_S = 0.5
"""How long after the nemesis moved the broker's clock either time may be the one it reads."""
ROUNDING_S = 0.002


class Violation(msgspec.Struct, frozen=True):
    """Which invariant does not hold, and where."""

    invariant: str
    text: str


class ByName(dict[Name, list[T]]):
    """What there is of each message; looking for one that is not there adds nothing."""

    def __missing__(self, name: Name) -> list[T]:
        return []

    def add(self, name: Name, thing: T) -> None:
        """One more of that message."""
        self.setdefault(name, []).append(thing)


class Evidence:
    """The history and the store, by message.

    A message that died and was requeued has several lives. Each death moved its fence on and has left a notice that
    tells which it was then, so it is certain to which life a lease belongs.
    """

    def __init__(self, history: Sequence[Line], store: Sequence[Brief]) -> None:
        self.rows: ByName[Brief] = ByName()
        self.attempts: ByName[Publish] = ByName()
        self.answers: ByName[Published] = ByName()
        self.deliveries: ByName[Delivered] = ByName()
        self.settles: ByName[Settle] = ByName()
        self.settled: ByName[Settled] = ByName()
        self.operated = [line for line in history if isinstance(line, Operate)]
        self.confirmed = [line for line in history if isinstance(line, Operated)]
        self._deaths: dict[int, list[int]] = defaultdict(list)
        self.clock = [line for line in history if isinstance(line, ClockMoved)]
        for row in sorted(store, key=lambda row: row.seq):
            self.rows.add((row.origin, row.id), row)
            if row.origin == BROKER:
                seq, fence = map(int, row.id.removeprefix(NOTICE).split("-"))
                self._deaths[seq].append(fence)
        for fences in self._deaths.values():
            fences.sort()
        owners: dict[Token, Name] = {}
        for line in history:
            if isinstance(line, Delivered):
                name = owners[line.seq, line.fence] = (line.origin, line.id)
                self.deliveries.add(name, line)
        for line in history:
            match line:
                case Publish():
                    self.attempts.add(line.name, line)
                case Published():
                    self.answers.add(line.name, line)
                case Settle():
                    self.settles.add(owners[line.seq, line.fence], line)
                case Settled():
                    self.settled.add(owners[line.seq, line.fence], line)

    def accepted(self, name: Name) -> list[Settled]:
        """The settles that the broker confirmed."""
        return [settled for settled in self.settled[name] if settled.answer == "ok"]

    def acknowledged(self, name: Name) -> float | None:
        """When the publisher first knew that the message was stored; None when it never did."""
        times = [answer.at for answer in self.answers[name] if answer.answer in ("stored", "duplicate")]
        return min(times, default=None)

    def seq(self, name: Name) -> int | None:
        """The message's place in the store, where it is known."""
        seqs = [row.seq for row in self.rows[name]] + [delivered.seq for delivered in self.deliveries[name]]
        return min(seqs, default=None)

    def deaths(self, seq: int) -> list[int]:
        """The fences with which the message there has died."""
        return self._deaths.get(seq, [])

    def life(self, lease: Delivered | Settled) -> int:
        """In which of its lives, from 0 on, a message was leased so."""
        return bisect_left(self.deaths(lease.seq), lease.fence)

    def asked(self, act: str, seq: int, before: float = math.inf) -> int:
        """How often an operator wanted it done to that message."""
        return sum(line.act == act and seq in line.seqs and line.at <= before for line in self.operated)

    def latest_wall(self, begin: Publish, end: Delivered) -> float:
        """The latest that the broker's wall clock can have shown between the two."""
        marks = [(-math.inf, 0.0), *((moved.at, moved.offset_s) for moved in self.clock)]
        ends = [mark[0] for mark in marks[1:]] + [end.at]
        unix = end.wall - end.at
        return max(
            (unix + min(until + CLOCK_SLACK_S, end.at) + offset)
            for (since, offset), until in zip(marks, ends, strict=True)
            if until + CLOCK_SLACK_S >= begin.at and since <= end.at
        )


def check(history: Sequence[Line], store: Sequence[Brief]) -> list[Violation]:
    """Return every violation; `store` is all that it holds once it is at rest."""
    evidence = Evidence(history, store)
    return [Violation(rule.__name__.removeprefix("_"), text) for rule in RULES for text in rule(evidence)]


def _lost(e: Evidence) -> Iterator[str]:
    """What was acknowledged is there, for what has ended is remembered for longer than any run takes."""
    for name in e.answers:
        if e.acknowledged(name) is None:
            continue
        if not e.rows[name]:
            yield f"{name} was acknowledged and is nowhere"


def _unpublished(e: Evidence) -> Iterator[str]:
    """Nothing is delivered, or stored, that nobody published; nor with another body, or at another address."""
    for name, deliveries in e.deliveries.items():
        if name[0] == BROKER:
            if not e.rows[name]:
                yield f"{name} is the broker's own and not in its store"
            continue
        known = e.attempts.get(name, [])
        for d in deliveries:
            if not any(attempt.at <= d.at and attempt.address == d.address for attempt in known):
                yield f"{name} was delivered at {d.address} and had not been published there"
            if not d.whole:
                yield f"{name} was delivered with another body"
    for name in e.rows:
        if name[0] != BROKER and name not in e.attempts:
            yield f"{name} is stored and was not published"


def _duplicate(e: Evidence) -> Iterator[str]:
    """(origin, id) names one message as long as the store remembers it."""
    for name, rows in e.rows.items():
        if len(rows) > 1:
            yield f"{name} is stored {len(rows)} times"
    for name, deliveries in e.deliveries.items():
        seqs = sorted({d.seq for d in deliveries} | {row.seq for row in e.rows[name]})
        if len(seqs) > 1:
            yield f"{name} is more than one message: {seqs}"
    for name, answers in e.answers.items():
        first = e.acknowledged(name)
        if first is not None and any(a.answer == "stored" and a.began > first for a in answers):
            yield f"{name} was stored again after it had been acknowledged"
    owners: dict[int, Name] = {}
    for name, deliveries in e.deliveries.items():
        for d in deliveries:
            if owners.setdefault(d.seq, name) != name:
                yield f"the place {d.seq} was given to {owners[d.seq]} and to {name}"


def _order(e: Evidence) -> Iterator[str]:
    """What one publisher sends to one address is stored in that order; of one key there is one lease at a time, and
    elders first.
    """
    by_publisher: dict[tuple[str, str], list[tuple[int, Name]]] = defaultdict(list)
    by_key: dict[tuple[str, str], list[tuple[int, Name]]] = defaultdict(list)
    for name, attempts in e.attempts.items():
        first, seq = attempts[0], e.seq(name)
        if seq is not None:
            by_publisher[first.address, first.by].append((seq, name))
            if first.key is not None:
                by_key[first.address, first.key].append((seq, name))
    for place, members in by_publisher.items():
        yield from _stored_in_order(e, place, [name for _, name in sorted(members)])
    for key_at, members in by_key.items():
        names = [name for _, name in sorted(members)]
        yield from _one_lease_at_a_time(e, key_at, names)
        latest, elder = -math.inf, names[0]
        for name in names:
            if any(d.at < latest for d in e.deliveries[name]):
                yield f"{name} was delivered while {elder} before it in {key_at} was still to be done"
            # Once it was dead, those behind it went on.
            first_life = [settled for settled in e.accepted(name) if e.life(settled) == 0]
            latest, elder = max([(latest, elder), *((settled.began, name) for settled in first_life)])


def _one_lease_at_a_time(e: Evidence, key_at: tuple[str, str], names: list[Name]) -> Iterator[str]:
    """From its delivery to the beginning of a settle that was accepted, a lease is certain to have run."""
    spans: list[tuple[float, float, Name]] = []
    for name in names:
        since = {(d.seq, d.fence): d.at for d in e.deliveries[name]}
        spans += [(since[settled.seq, settled.fence], settled.began, name) for settled in e.accepted(name)]
    end, holder = -math.inf, names[0]
    for begun, until, name in sorted(spans):
        if begun < end:
            yield f"{name} and {holder} of {key_at} were in hand at a time"
        end, holder = max((end, holder), (until, name))


def _stored_in_order(e: Evidence, place: tuple[str, str], names: list[Name]) -> Iterator[str]:
    """What was begun after another was acknowledged has the later place, here and in another cluster."""
    latest, before = -math.inf, names[0]
    for name in names:
        acknowledged = e.acknowledged(name)
        if acknowledged is not None and acknowledged < latest:
            yield f"{before} was published after {name} at {place} and stored before it"
        latest, before = max((latest, before), (min(attempt.at for attempt in e.attempts[name]), name))


def _early(e: Evidence) -> Iterator[str]:
    """Delays run on monotonic time and never get shorter; not-before and expiry mean the broker's wall clock."""
    for name, deliveries in e.deliveries.items():
        if not (attempts := e.attempts.get(name)):
            continue
        wish = min(attempts, key=lambda attempt: attempt.at)
        first = min(deliveries, key=lambda d: d.at)
        if first.at - wish.at < wish.delay_s - ROUNDING_S:
            yield f"{name} was delivered after {first.at - wish.at:.3f} s instead of {wish.delay_s:.3f} s"
        if wish.not_before is not None and e.latest_wall(wish, first) < wish.not_before - ROUNDING_S:
            yield f"{name} was delivered before {wish.not_before:.3f}"
        for settled in e.accepted(name):
            if settled.outcome == "retry":
                life = [d for d in deliveries if e.life(d) == e.life(settled)]
                later = (d.at for d in life if d.fence > settled.fence and d.at > settled.began)
                again = min(later, default=None)
                if again is not None and again - settled.began < settled.delay_s - ROUNDING_S:
                    yield f"{name} came again after {again - settled.began:.3f} s instead of {settled.delay_s:.3f} s"
    for name, rows in e.rows.items():
        for row in rows:
            if row.state == State.EXPIRED and name in e.attempts:
                span = e.attempts[name][0].expires_s
                if span is None or row.changed_at < row.published_at + span - ROUNDING_S:
                    yield f"{name} expired before its time"


def _attempts(e: Evidence) -> Iterator[str]:
    """No message is tried more often than it may be in a life, and an attempt that has failed is counted."""
    for name, deliveries in e.deliveries.items():
        most = e.attempts[name][0].max_attempts if name in e.attempts else None
        leases = sorted(deliveries, key=lambda d: d.fence)
        if most is not None and any(d.attempt > most for d in leases):
            yield f"{name} was delivered more often than {most} times"
        failed = {(s.seq, s.fence) for s in e.accepted(name) if s.outcome == "retry"}
        for earlier, later in pairwise(leases):
            least = earlier.attempt + ((earlier.seq, earlier.fence) in failed)
            if e.life(earlier) == e.life(later) and later.attempt < least:
                yield f"the attempts of {name} were not counted"
    for name, rows in e.rows.items():
        if any(row.attempt > row.max_attempts for row in rows):
            yield f"{name} has more attempts on record than it may"


def _state(e: Evidence) -> Iterator[str]:
    """Every message ends in exactly one state, which somebody brought about."""
    for name, rows in e.rows.items():
        said = {settle.outcome for settle in e.settles[name]}
        final = [settled for settled in e.accepted(name) if settled.outcome != "retry"]
        if len({e.life(settled) for settled in final}) < len(final):
            yield f"{name} was ended {len(final)} times"
        for row in rows:
            yield from _ended_as_said(e, name, row, final)
            carried = "/" in row.address  # by the bridge, which keeps no record here
            if row.state in (State.READY, State.LEASED):
                yield f"{name} has not ended: it is {row.state.name}"
            if row.state == State.PURGED and not e.asked("purge", row.seq):
                yield f"{name} is purged and nobody did it"
            if row.state == State.DONE and not said & {"done", "move"} and not carried:
                yield f"{name} is done and nobody said so"
            if row.state == State.DEAD and "reject" not in said and row.attempt < row.max_attempts:
                yield f"{name} is dead after {row.attempt} of {row.max_attempts} attempts and nobody rejected it"


def _ended_as_said(e: Evidence, name: Name, row: Brief, final: list[Settled]) -> Iterator[str]:
    """What was confirmed to a consumer is so, and a dead letter has no other end unless it was requeued."""
    for settled in final:
        if settled.outcome != "reject" and (row.state != State.DONE or e.life(settled) < len(e.deaths(row.seq))):
            yield f"{name} was accepted as {settled.outcome} and is {row.state.name}, or was dead since"
        requeued = e.asked("requeue", row.seq)
        if settled.outcome == "reject" and row.state not in (State.DEAD, State.PURGED) and not requeued:
            yield f"{name} was accepted as reject and is {row.state.name}"


def _operator(e: Evidence) -> Iterator[str]:
    """No dead letter lives again by itself, and what an operator was told is so."""
    for name, deliveries in e.deliveries.items():
        for d in deliveries:
            if e.life(d) and e.asked("requeue", d.seq, d.at) < e.life(d):
                yield f"{name} was delivered after its death and nobody had requeued it"
    rows = {row.seq: row for rows in e.rows.values() for row in rows}
    for line in e.confirmed:
        for seq in line.seqs:
            row = rows.get(seq)
            if line.act == "purge" and (row is None or row.state != State.PURGED):
                yield f"the message {seq} was purged and is not"
            done = sum(other.act == "requeue" and seq in other.seqs for other in e.confirmed)
            if line.act == "requeue" and (row is None or (row.state == State.DEAD and len(e.deaths(seq)) <= done)):
                yield f"the message {seq} was requeued and is as it was"


def _moved(e: Evidence) -> Iterator[str]:
    """To store the next and to end the former is one transaction."""
    for name, settles in e.settles.items():
        moves = {settle.moved for settle in settles if settle.moved is not None}
        stored = [moved for moved in moves if e.rows[moved]]
        done = any(row.state == State.DONE for row in e.rows[name])
        if len(stored) > 1:
            yield f"{name} was moved {len(stored)} times: {stored}"
        if stored and not done:
            yield f"{stored[0]} is stored and {name}, from which it was moved, is not done"
        if done and moves and not stored and not any(settle.outcome == "done" for settle in settles):
            yield f"{name} is done by a move, and nothing came of it"


def _fencing(e: Evidence) -> Iterator[str]:
    """Each lease has a token of its own, and one that has passed ends nothing."""
    seen: dict[Token, Name] = {}
    for name, deliveries in e.deliveries.items():
        for d in deliveries:
            if (d.seq, d.fence) in seen:
                yield f"{name} was delivered twice with the token {d.seq}:{d.fence}"
            seen[d.seq, d.fence] = name
        for settled in e.accepted(name):
            newer = [d.at for d in deliveries if d.fence > settled.fence and e.life(d) == e.life(settled)]
            if newer and (settled.outcome != "retry" or settled.began > min(newer)):
                yield f"{settled.by} could {settled.outcome} {name} by {settled.seq}:{settled.fence}, which had passed"


def _notice(e: Evidence) -> Iterator[str]:
    """A death and the notice of it are one transaction."""
    for name, rows in e.rows.items():
        for row in rows:
            if row.address == NOTICES:
                continue
            if row.state == State.DEAD and not e.deaths(row.seq):
                yield f"{name} is dead and nobody was told"
            for settled in e.accepted(name):
                if settled.outcome == "reject" and settled.fence not in e.deaths(row.seq):
                    yield f"{name} was rejected and nobody was told"


RULES = (_lost, _unpublished, _duplicate, _order, _early, _attempts, _state, _operator, _moved, _fencing, _notice)


def summary(violations: Iterable[Violation], most: int = 10) -> str:
    """Return the first violations of each invariant, for a person."""
    by_invariant: dict[str, list[str]] = defaultdict(list)
    for violation in violations:
        by_invariant[violation.invariant].append(violation.text)
    return "\n".join(
        f"{invariant} ({len(texts)}):\n" + "\n".join(f"  {text}" for text in texts[:most])
        for invariant, texts in by_invariant.items()
    )

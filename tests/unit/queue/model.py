"""A store that is as simple as can be: the yardstick for the real one. Its disk is an object, its speed no matter."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from appliance.queue.address import matches
from appliance.queue.store import (
    Brief,
    Counts,
    Detail,
    Given,
    HeldItem,
    NewItem,
    Purged,
    Record,
    Requeued,
    Snapshot,
    Standing,
    State,
    Still,
    TakenItem,
)

ENDED = (State.DONE, State.EXPIRED, State.PURGED)


class Entry(msgspec.Struct):
    """An item and what became of it."""

    new: NewItem
    body: bytes
    due: float | None
    not_before: float | None
    expires_at: float | None
    changed_at: float
    state: State = State.READY
    attempt: int = 0
    fence: int = 0
    holder: str = ""
    reason: str = ""

    @property
    def line(self) -> tuple[str, str | None]:
        """Address and key."""
        return self.new.address, self.new.key


class Content(msgspec.Struct):
    """All that a store holds."""

    entries: dict[int, Entry] = msgspec.field(default_factory=dict)
    history: list[Record] = msgspec.field(default_factory=list)
    counts: dict[str, Counts] = msgspec.field(default_factory=dict)
    clock: float = 0.0
    next_seq: int = 1
    forgotten: int = 0


class Disk(msgspec.Struct):
    """What outlives a store."""

    content: Content = msgspec.field(default_factory=Content)


class ModelStore:
    """See Store."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.rollback()

    @property
    def changed(self) -> bool:
        """See Store."""
        return self._now != self._disk.content

    @property
    def waits_for_room(self) -> bool:
        """See Store."""
        return False

    def commit(self) -> None:
        """See Store."""
        self._disk.content = copy.deepcopy(self._now)

    def rollback(self) -> None:
        """See Store."""
        self._now = copy.deepcopy(self._disk.content)

    def close(self) -> None:
        """See Store."""
        self.rollback()

    def tidy(self) -> None:
        """See Store."""

    def still(self) -> Still:
        """See Store."""
        raise NotImplementedError("nothing reads a model in a thread of its own")

    def compact(self, pages: int) -> int:
        """See Store."""
        return 0

    def load(self) -> Snapshot:
        """See Store."""
        now = self._now
        held = [
            HeldItem(
                seq, e.fence, e.new.origin, e.new.id, e.new.address, e.attempt, e.new.max_attempts, e.holder,
                len(e.new.body),
            )
            for seq, e in self._sorted() if e.state is State.LEASED
        ]  # fmt: skip
        next_seq = max(now.next_seq, max(now.entries, default=0) + 1)
        return Snapshot(now.clock, next_seq, held, copy.deepcopy(now.counts), now.forgotten)

    def put(self, items: Sequence[NewItem]) -> list[bool]:
        """See Store."""
        answers = []
        for i in items:
            answers.append(not self.knows(i.origin, i.id))
            if answers[-1]:
                self._now.entries[i.seq] = Entry(i, i.body, i.due, i.not_before, i.expires_at, i.published_at)
        return answers

    def take(self, address: str, holder: str, limit: int, max_bytes: int, wall: float) -> tuple[list[TakenItem], bool]:
        """See Store."""
        free = [(seq, e) for seq, e in self._sorted() if e.new.address == address and self._can_be_leased(seq, e, wall)]
        taken: list[TakenItem] = []
        for seq, e in free[:limit]:
            max_bytes -= len(e.body)
            if taken and max_bytes < 0:
                break
            e.state, e.attempt, e.fence, e.holder, e.changed_at = State.LEASED, e.attempt + 1, e.fence + 1, holder, wall
            i = e.new
            taken.append(
                TakenItem(
                    seq, e.fence, i.origin, i.id, address, e.attempt, i.max_attempts, i.published_at, e.body,
                    e.expires_at, i.waybill,
                )
            )  # fmt: skip
        return taken, len(taken) < len(free) or len(taken) == limit

    def _can_be_leased(self, seq: int, e: Entry, wall: float) -> bool:
        if e.state is not State.READY or e.due is not None or e.not_before is not None:
            return False
        if e.expires_at is not None and e.expires_at <= wall:
            return False
        return e.new.key is None or not any(
            other.line == e.line and (other.state is State.LEASED or (other.state is State.READY and place < seq))
            for place, other in self._sorted()
        )

    def finish(self, seqs: Sequence[int], wall: float) -> None:
        """See Store."""
        for seq in seqs:
            self._end(self._now.entries[seq], State.DONE, wall)

    def _end(self, e: Entry, state: State, wall: float, reason: str | None = None) -> None:
        e.state, e.changed_at, e.body, e.due, e.not_before = state, wall, b"", None, None
        e.reason = e.reason if reason is None else reason

    def give_back(self, given: Iterable[Given], wall: float) -> None:
        """See Store."""
        for g in given:
            e = self._now.entries[g.seq]
            e.state, e.fence, e.attempt, e.due, e.reason = State.READY, g.fence, g.attempt, g.due, g.reason
            e.changed_at = wall

    def bury(self, seq: int, fence: int, wall: float, reason: str) -> None:
        """See Store."""
        e = self._now.entries[seq]
        e.state, e.fence, e.changed_at, e.reason = State.DEAD, fence, wall, reason

    def write_history(self, records: Iterable[Record]) -> None:
        """See Store."""
        self._now.history.extend(records)

    def wake(self, now: float, wall: float) -> dict[str, int]:
        """See Store."""
        woken: dict[str, int] = {}
        for _, e in self._sorted():
            if e.due is not None and e.due <= now:
                e.due = None
                woken[e.new.address] = woken.get(e.new.address, 0) + 1
            if e.not_before is not None and e.not_before <= wall:
                e.not_before = None
                woken[e.new.address] = woken.get(e.new.address, 0) + 1
        return woken

    def expire(self, wall: float, limit: int) -> list[tuple[str, int]]:
        """See Store."""
        over = [
            e for e in self._now.entries.values()
            if e.state is State.READY and e.expires_at is not None and e.expires_at <= wall
        ]  # fmt: skip
        for e in over[:limit]:
            self._end(e, State.EXPIRED, wall, "expired")
        return [(e.new.address, len(e.new.body)) for e in over[:limit]]

    def next_times(self) -> tuple[float | None, float | None]:
        """See Store."""
        waiting = [e for e in self._now.entries.values() if e.state is State.READY]
        due = [e.due for e in waiting if e.due is not None]
        wall = [at for e in waiting for at in (e.not_before, e.expires_at) if at is not None]
        return min(due, default=None), min(wall, default=None)

    def remembered_since(self) -> float | None:
        """See Store."""
        return min((e.changed_at for e in self._now.entries.values() if e.state in ENDED), default=None)

    def forget(self, before: float, limit: int) -> int:
        """See Store."""
        ended = [(e.changed_at, seq) for seq, e in self._sorted() if e.state in ENDED and e.changed_at < before]
        gone = {seq for _, seq in sorted(ended)[:limit]}
        if gone:
            self._now.next_seq = max(self._now.next_seq, max(self._now.entries) + 1)
        for seq in gone:
            del self._now.entries[seq]
        self._now.forgotten += len(gone)
        self._now.history = [line for line in self._now.history if line.seq not in gone]
        return len(gone)

    def requeue(self, seqs: Sequence[int], wall: float) -> list[Requeued]:
        """See Store."""
        found = []
        for seq, e in self._chosen(seqs, lambda e: e.state is State.DEAD):
            e.state, e.attempt, e.fence, e.changed_at = State.READY, 0, e.fence + 1, wall
            if e.expires_at is not None and e.expires_at <= wall:
                e.expires_at = None
            found.append(Requeued(seq, e.new.address, len(e.new.body)))
        self._now.history += [Record(r.seq, wall, 0, "", "requeued", "") for r in found]
        return found

    def purge(self, seqs: Sequence[int], wall: float) -> list[Purged]:
        """See Store."""
        found = []
        for seq, e in self._chosen(seqs, lambda e: e.state in (State.READY, State.DEAD)):
            found.append(Purged(seq, e.new.address, len(e.new.body), e.state))
            self._end(e, State.PURGED, wall, "purged")
        self._now.history += [Record(p.seq, wall, 0, "", "purged", "") for p in found]
        return found

    def _chosen(self, seqs: Sequence[int], fits: Callable[[Entry], bool]) -> list[tuple[int, Entry]]:
        entries = self._now.entries
        return [(seq, entries[seq]) for seq in dict.fromkeys(seqs) if seq in entries and fits(entries[seq])]

    def progress(self, clock: float | None, counts: Mapping[str, Counts]) -> None:
        """See Store."""
        if clock is not None:
            self._now.clock = clock
        self._now.counts |= copy.deepcopy(dict(counts))

    def find(self, seq: int) -> Standing | None:
        """See Store."""
        e = self._now.entries.get(seq)
        return None if e is None else Standing(e.state, e.fence, e.holder, e.new.origin, e.new.address)

    def knows(self, origin: str, message: str) -> bool:
        """See Store."""
        return any((e.new.origin, e.new.id) == (origin, message) for e in self._now.entries.values())

    def look(self, seq: int) -> Detail | None:
        """See Store."""
        e = self._now.entries.get(seq)
        if e is None:
            return None
        history = tuple(line for line in self._now.history if line.seq == seq)
        return Detail(
            **msgspec.structs.asdict(self._brief(seq, e)), waybill=e.new.waybill, key=e.new.key, due=e.due,
            not_before=e.not_before, expires_at=e.expires_at, body=e.body, history=history,
        )  # fmt: skip

    def browse(self, address: str, state: State, after: int, limit: int) -> list[Brief]:
        """See Store."""
        return [
            self._brief(seq, e) for seq, e in self._sorted()
            if e.state is state and seq > after and matches(address, e.new.address)
        ][:limit]  # fmt: skip

    def recent(self, limit: int, only: str = "*", without: str = "") -> list[Brief]:
        """See Store."""
        named = [(e.new.address.rpartition("/")[2], seq, e) for seq, e in reversed(self._sorted())]
        found = [(seq, e) for name, seq, e in named if matches(only, name) and not matches(without, name)]
        return [self._brief(seq, e) for seq, e in found[:limit]]

    def _brief(self, seq: int, e: Entry) -> Brief:
        i = e.new
        return Brief(
            seq, i.origin, i.id, i.address, e.state, e.attempt, i.max_attempts, len(i.body), i.published_at,
            e.changed_at, e.holder, e.reason,
        )  # fmt: skip

    def _sorted(self) -> list[tuple[int, Entry]]:
        return sorted(self._now.entries.items())

"""Where work waits: the interface every store fulfils, and what goes in and out of it.

All changes between two commits are one transaction; nothing counts before `commit` has returned. Times named `due` are
broker time (see clock.py), the others Unix time.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec


class State(enum.IntEnum):
    """Where a work item is in its life; DONE, EXPIRED and PURGED are final, DEAD until a person decides."""

    READY = 0
    LEASED = 1
    DONE = 2
    DEAD = 3
    EXPIRED = 4
    PURGED = 5


class NewItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A work item on its way in; `seq` is its place in the order of this store, `waybill` see onward.py."""

    seq: int
    origin: str
    id: str
    address: str
    body: bytes
    max_attempts: int
    published_at: float
    due: float | None = None
    not_before: float | None = None
    expires_at: float | None = None
    key: str | None = None
    waybill: bytes | None = None


class TakenItem(msgspec.Struct, frozen=True, gc=False):
    """A work item as it was just leased; (seq, fence) is its token."""

    seq: int
    fence: int
    origin: str
    id: str
    address: str
    attempt: int
    max_attempts: int
    published_at: float
    body: bytes
    expires_at: float | None
    waybill: bytes | None


class HeldItem(msgspec.Struct, frozen=True, gc=False):
    """A lease that is on record."""

    seq: int
    fence: int
    origin: str
    id: str
    address: str
    attempt: int
    max_attempts: int
    holder: str
    size: int


class Given(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lease that ends with the item ready again, from `due` on; a new `fence` makes the old token worth nothing."""

    seq: int
    fence: int
    attempt: int
    due: float | None
    reason: str


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A line of an item's history: what happened to attempt `attempt`, and why."""

    seq: int
    at: float
    attempt: int
    holder: str
    what: str
    reason: str


class Counts(msgspec.Struct, array_like=True):
    """How many items of an address are in each state now, and how many ever ended (totals outlive the items)."""

    ready: int = 0
    leased: int = 0
    dead: int = 0
    bytes: int = 0
    done_total: int = 0
    dead_total: int = 0
    expired_total: int = 0
    purged_total: int = 0


class Snapshot(msgspec.Struct, frozen=True):
    """What the broker needs to go on where it, or the one before it, stopped.

    `next_seq` is beyond that of every item that there ever was; `forgotten` is how many ended items are there no more.
    """

    clock: float
    next_seq: int
    held: list[HeldItem]
    counts: dict[str, Counts]
    forgotten: int


class Standing(msgspec.Struct, frozen=True):
    """Where an item is in its life, its newest fence, who held it last, who published it, and to where."""

    state: State
    fence: int
    holder: str
    origin: str
    address: str


class Brief(msgspec.Struct, frozen=True):
    """An item without its body, for a person to look at."""

    seq: int
    origin: str
    id: str
    address: str
    state: State
    attempt: int
    max_attempts: int
    size: int
    published_at: float
    changed_at: float
    holder: str
    reason: str


class Detail(Brief, frozen=True):
    """All there is to know about an item; `body` is empty once it has ended, `history` is oldest first."""

    waybill: bytes | None
    key: str | None
    due: float | None
    not_before: float | None
    expires_at: float | None
    body: bytes
    history: tuple[Record, ...]


class Requeued(msgspec.Struct, frozen=True, gc=False):
    """A dead letter that is READY again."""

    seq: int
    address: str
    size: int


class Purged(msgspec.Struct, frozen=True, gc=False):
    """An item that was made PURGED, and the state it was in."""

    seq: int
    address: str
    size: int
    was: State


class Still(Protocol):
    """What a store held at one moment, which another thread may read while the store goes on."""

    def copy(self, path: Path, leave_free: int = 0) -> int:
        """Write it to `path`, which is there in full and on disk, or not at all; return its size.

        Raises CopyFailed, also where less than `leave_free` bytes of the disk might be left.
        """

    def check(self) -> list[str]:
        """Return what is wrong with it, a sentence each; empty when all is well."""

    def interrupt(self) -> None:
        """Make a copy or a check end soon."""

    def close(self) -> None:
        """Let go of it, on the store's own thread and before the store is closed."""


class Store(Protocol):
    """A durable store of work items. Methods raise StoreFull (undone, go on) or StoreFailed (end the process)."""

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""

    @property
    def waits_for_room(self) -> bool:
        """Whether the store could not put its files in order, the disk being full, and does so once there is room."""

    def load(self) -> Snapshot:
        """Return what is on record. Items whose lease was running are still leased."""

    def put(self, items: Sequence[NewItem]) -> list[bool]:
        """Add items as READY; False for each whose (origin, id) is already there."""

    def take(self, address: str, holder: str, limit: int, max_bytes: int, wall: float) -> tuple[list[TakenItem], bool]:
        """Lease up to `limit` items, at most `max_bytes` beyond the first, oldest first, to `holder`.

        Skips what is not due, has expired, or shares its key with an unfinished elder or with a leased item. Returns
        the items, and whether there may be more.
        """

    def finish(self, seqs: Sequence[int], wall: float) -> None:
        """Make leased items DONE and drop their bodies."""

    def give_back(self, given: Iterable[Given], wall: float) -> None:
        """Make leased items READY again."""

    def bury(self, seq: int, fence: int, wall: float, reason: str) -> None:
        """Make a leased item DEAD, with this fence from now on; body and history stay."""

    def write_history(self, records: Iterable[Record]) -> None:
        """Add lines to the history of items."""

    def wake(self, now: float, wall: float) -> dict[str, int]:
        """Let items become due whose time has come; how many per address."""

    def expire(self, wall: float, limit: int) -> list[tuple[str, int]]:
        """Make READY items EXPIRED whose time is over; address and body size of each."""

    def next_times(self) -> tuple[float | None, float | None]:
        """Return when, next, something is due (broker time), and when something begins or expires (Unix time)."""

    def forget(self, before: float, limit: int) -> int:
        """Drop up to `limit` items that ended before `before`, the first ended first; how many."""

    def requeue(self, seqs: Sequence[int], wall: float) -> list[Requeued]:
        """Make DEAD items READY with all their attempts and a new fence; an expiry that has passed is lifted.

        Returns those that were DEAD, and adds a line to the history of each.
        """

    def purge(self, seqs: Sequence[int], wall: float) -> list[Purged]:
        """Make READY and DEAD items PURGED and drop their bodies; others stay as they are.

        Returns those that were purged, and adds a line to the history of each.
        """

    def progress(self, clock: float | None, counts: Mapping[str, Counts]) -> None:
        """Put on record the counts of addresses and, unless it is None, broker time."""

    def remembered_since(self) -> float | None:
        """Return when the first of the items that have ended, and are still there, ended; None where there is none."""

    def find(self, seq: int) -> Standing | None:
        """Return how things stand with an item, None if there is none."""

    def knows(self, origin: str, message: str) -> bool:
        """Return whether there is an item of this origin and id `message`."""

    def look(self, seq: int) -> Detail | None:
        """Return everything about an item, None if there is none."""

    def browse(self, address: str, state: State, after: int, limit: int) -> list[Brief]:
        """Return up to `limit` items in `state` at addresses that match the pattern, by `seq`, all beyond `after`.

        To read on, pass the last `seq` as `after`.
        """

    def recent(self, limit: int, only: str = "*", without: str = "") -> list[Brief]:
        """Return the newest items whose short name matches `only` and not `without`, newest first."""

    def commit(self) -> None:
        """Return once everything since the last commit is on disk; does nothing when nothing changed."""

    def rollback(self) -> None:
        """Undo everything since the last commit."""

    def tidy(self) -> None:
        """Put the files in order, as far as there is room. Called now and then, and while nobody waits for an answer;
        nothing may be uncommitted.
        """

    def still(self) -> Still:
        """Return what is on disk, for another thread to read; one at a time. Nothing may be uncommitted.

        Raises CopyFailed where it cannot be had, and then the store is as it was.
        """

    def compact(self, pages: int) -> int:
        """Return up to `pages` unused pages to the file system; how many it was. Nothing may be uncommitted."""

    def close(self) -> None:
        """Undo what was not committed and let go of the files."""

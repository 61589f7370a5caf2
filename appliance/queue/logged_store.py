"""A store that answers as soon as a turn is in its redo log, and writes its tables for many turns at once.

The tables are what the SQLite store makes of all turns so far, in a transaction that stays open meanwhile. A crash
takes that back to its last commit, and the log has what came after it.
"""

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from appliance.queue import turns
from appliance.queue.errors import NO_ROOM, CopyFailed, StoreFailed, StoreFull
from appliance.queue.redo import RedoLog
from appliance.queue.sqlite_file import AGAIN_S, LAID_OUT
from appliance.queue.sqlite_still import SqliteStill
from appliance.queue.sqlite_store import SqliteStore
from appliance.queue.store import (
    Brief,
    Counts,
    Detail,
    Given,
    NewItem,
    Purged,
    Record,
    Requeued,
    Snapshot,
    Standing,
    State,
    TakenItem,
)

log = logging.getLogger(__name__)

QUIET_BYTES = 2**15
"""So many bytes of turns are handed over while nobody waits for an answer."""
HAND_OVER_BYTES = 2**19
HAND_OVER_CHANGES = 8000
"""So many, or rows that they have changed, are handed over whoever waits: a commit of the tables takes milliseconds
then, and what is changed is held in memory until it is made.
"""
MOST_BYTES, MOST_CHANGES, MOST_TURNS = 16 * HAND_OVER_BYTES, 4 * HAND_OVER_CHANGES, 4000
"""With so many, the disk having no room for the tables, there is no room for turns either."""


class LoggedStore:
    """See Store. Nothing else may use the tables or the log."""

    def __init__(self, tables: SqliteStore, redo: RedoLog) -> None:
        self._tables = tables
        self._redo = redo
        self._steps: list[turns.Step] = []
        self._kept: list[bytes] = []
        """The turns that a crash would take from the tables."""
        self._bytes = 0
        self._failed = False
        self._turn = tables.turn
        self._again_at: float | None = None
        """When to try again to commit the tables, after the disk had no room for that."""
        for turn, content in redo.after(tables.turn):
            self._do(content)
            self._keep(turn, content)
            self._hand_over_in_time()
        self._hand_over()

    def _do(self, content: bytes) -> None:
        for step in turns.decode(content):
            step.do(self._tables)

    def _keep(self, turn: int, content: bytes) -> None:
        self._turn = turn
        self._kept.append(content)
        self._bytes += len(content)

    @property
    def changed(self) -> bool:
        """See Store."""
        return bool(self._steps)

    @property
    def waits_for_room(self) -> bool:
        """See Store."""
        return self._again_at is not None or self._tables.waits_for_room

    def put(self, items: Sequence[NewItem]) -> list[bool]:
        """See Store."""
        self._steps.append(turns.Put(items))
        return self._tables.put(items)

    def take(self, address: str, holder: str, limit: int, max_bytes: int, wall: float) -> tuple[list[TakenItem], bool]:
        """See Store."""
        step = turns.Take(address, holder, limit, max_bytes, wall, [])
        self._steps.append(step)
        taken, more = self._tables.take(address, holder, limit, max_bytes, wall)
        step.taken = [item.seq for item in taken]
        self._drop_unless(taken)
        return taken, more

    def _drop_unless(self, changed: object) -> None:
        """Forget the last step where it has changed nothing."""
        if not changed:
            self._steps.pop()

    def finish(self, seqs: Sequence[int], wall: float) -> None:
        """See Store."""
        self._steps.append(turns.Finish(seqs, wall))
        self._tables.finish(seqs, wall)

    def give_back(self, given: Iterable[Given], wall: float) -> None:
        """See Store."""
        given = list(given)
        self._steps.append(turns.GiveBack(given, wall))
        self._tables.give_back(given, wall)

    def bury(self, seq: int, fence: int, wall: float, reason: str) -> None:
        """See Store."""
        self._steps.append(turns.Bury(seq, fence, wall, reason))
        self._tables.bury(seq, fence, wall, reason)

    def write_history(self, records: Iterable[Record]) -> None:
        """See Store."""
        records = list(records)
        self._steps.append(turns.WriteHistory(records))
        self._tables.write_history(records)

    def wake(self, now: float, wall: float) -> dict[str, int]:
        """See Store."""
        self._steps.append(turns.Wake(now, wall))
        woken = self._tables.wake(now, wall)
        self._drop_unless(woken)
        return woken

    def expire(self, wall: float, limit: int) -> list[tuple[str, int]]:
        """See Store."""
        self._steps.append(turns.Expire(wall, limit))
        expired = self._tables.expire(wall, limit)
        self._drop_unless(expired)
        return expired

    def forget(self, before: float, limit: int) -> int:
        """See Store."""
        self._steps.append(turns.Forget(before, limit))
        number = self._tables.forget(before, limit)
        self._drop_unless(number)
        return number

    def requeue(self, seqs: Sequence[int], wall: float) -> list[Requeued]:
        """See Store."""
        self._steps.append(turns.Requeue(seqs, wall))
        requeued = self._tables.requeue(seqs, wall)
        self._drop_unless(requeued)
        return requeued

    def purge(self, seqs: Sequence[int], wall: float) -> list[Purged]:
        """See Store."""
        self._steps.append(turns.Purge(seqs, wall))
        purged = self._tables.purge(seqs, wall)
        self._drop_unless(purged)
        return purged

    def progress(self, clock: float | None, counts: Mapping[str, Counts]) -> None:
        """See Store."""
        self._steps.append(turns.Progress(clock, dict(counts)))
        self._tables.progress(clock, counts)

    def load(self) -> Snapshot:
        """See Store."""
        return self._tables.load()

    def next_times(self) -> tuple[float | None, float | None]:
        """See Store."""
        return self._tables.next_times()

    def remembered_since(self) -> float | None:
        """See Store."""
        return self._tables.remembered_since()

    def find(self, seq: int) -> Standing | None:
        """See Store."""
        return self._tables.find(seq)

    def knows(self, origin: str, message: str) -> bool:
        """See Store."""
        return self._tables.knows(origin, message)

    def look(self, seq: int) -> Detail | None:
        """See Store."""
        return self._tables.look(seq)

    def browse(self, address: str, state: State, after: int, limit: int) -> list[Brief]:
        """See Store."""
        return self._tables.browse(address, state, after, limit)

    def recent(self, limit: int, only: str = "*", without: str = "") -> list[Brief]:
        """See Store."""
        return self._tables.recent(limit, only, without)

    def commit(self) -> None:
        """See Store."""
        if not self._steps:
            return
        if self._is_full:
            raise StoreFull(NO_ROOM)
        content = turns.encode(self._steps)
        try:
            self._append(content)
        except StoreFailed:
            self._failed = True
            raise
        self._steps.clear()
        self._keep(self._turn + 1, content)
        self._hand_over_in_time()

    def _append(self, content: bytes) -> None:
        try:
            self._redo.append(self._turn + 1, content)
        except StoreFull:
            self._secure()  # there may be room in the other file then
            self._redo.append(self._turn + 1, content)

    def _secure(self) -> None:
        self._tables.secure()
        self._redo.secured(self._tables.secured)

    def rollback(self) -> None:
        """See Store."""
        self._steps.clear()
        self._begin_again()
        if self._again_at is None or self._may_try_again:
            self._hand_over()  # so that the log has room, should it be that which had none

    def _begin_again(self) -> None:
        """Make of the tables what the turns in the log have made of them, and nothing else."""
        self._failed = True  # until they are: what is half done is not handed over, not even by the end
        self._tables.rollback()
        for content in self._kept:
            self._do(content)
        self._failed = False

    def tidy(self) -> None:
        """See Store."""
        self._tables.tidy()
        self._hand_over_in_time(QUIET_BYTES)

    @property
    def _is_full(self) -> bool:
        kept = self._bytes >= MOST_BYTES or len(self._kept) >= MOST_TURNS
        return self._again_at is not None and (kept or self._tables.changes >= MOST_CHANGES)

    @property
    def _may_try_again(self) -> bool:
        return self._again_at is not None and not self._tables.waits_for_room and time.monotonic() >= self._again_at

    def _hand_over_in_time(self, enough: int | None = None) -> None:
        if self._again_at is None:
            if self._bytes >= (enough or HAND_OVER_BYTES) or self._tables.changes >= HAND_OVER_CHANGES:
                self._hand_over()
        elif self._may_try_again:
            self._begin_again()  # what room there is goes to the file before its log takes it
            self._hand_over()
        if self._redo.crowded:
            self._secure()
        self._redo.secured(self._tables.secured)

    def _hand_over(self) -> None:
        """Commit the tables, or see to it that it is tried again once the disk may have room."""
        if not (self._kept or self._tables.changed):
            return
        try:
            self._tables.commit_turn(self._turn)
        except StoreFull:
            self._begin_again()
            self._again_at = time.monotonic() + AGAIN_S
            return
        except StoreFailed:
            self._failed = True
            raise
        self._kept.clear()
        self._bytes = 0
        self._again_at = None
        if self._redo.filling:
            self._tables.secure_soon()

    def still(self) -> SqliteStill:
        """See Store."""
        self._hand_over()
        if self._again_at is not None:
            raise CopyFailed(NO_ROOM)
        return self._tables.still()

    def compact(self, pages: int) -> int:
        """See Store."""
        self._hand_over()
        return 0 if self._again_at is not None else self._tables.compact(pages)

    def close(self) -> None:
        """See Store. After an I/O error nothing else is tried."""
        if not self._steps and not self._failed:
            try:
                self._tables.tidy()  # which says whether it has failed
                self._hand_over()
                if self._again_at is None:
                    self._secure()
                    self._redo.clear()
            except StoreFailed as error:
                log.error("the next start does the last turns again: %s", error.message)
        self._tables.close()
        self._redo.close()


def open_store(path: Path, *, lay_out: bool = False) -> LoggedStore:
    """Return the broker's store; `lay_out` makes its logs as long as they become. Raises StoreFailed."""
    with contextlib.ExitStack() as opened:
        tables = SqliteStore(path, laid_out=LAID_OUT if lay_out else 0, logged=True)
        opened.callback(tables.close)
        redo = RedoLog(path, lay_out=lay_out)
        opened.callback(redo.close)
        store = LoggedStore(tables, redo)
        opened.pop_all()
        return store

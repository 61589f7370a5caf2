"""What the SQLite store has on record: looking, without changing anything."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from appliance.queue.sqlite_file import translated
from appliance.queue.store import Brief, Counts, Detail, HeldItem, Record, Snapshot, Standing, State

FROM = "FROM work LEFT JOIN lease ON lease.seq = work.seq"
STATE = "iif(lease.seq IS NULL, state, 1)"
BRIEF = f"""work.seq, origin, id, address, {STATE}, ifnull(lease.attempt, work.attempt), max_attempts, size,
 published_at, ifnull(lease.at, changed_at), ifnull(lease.holder, work.holder), reason"""
IN_STATE = {
    State.READY: "state = 0 AND lease.seq IS NULL",
    State.LEASED: "work.seq IN (SELECT seq FROM lease)",
}
"""Other states are as they are on record; each is written out, so that the planner sees the index for it."""
# `*` stands for anything but a slash: where there are as many in the address as in the pattern, it did.
BROWSE = f"""SELECT {BRIEF} {FROM} WHERE %s AND work.seq > ? AND address GLOB ?
 AND length(address) - length(replace(address, '/', '')) = ? ORDER BY work.seq LIMIT ?"""
LOOK = f"""SELECT {BRIEF}, waybill, work.key, due, not_before, expires_at, data
 {FROM} LEFT JOIN body ON body.seq = work.seq WHERE work.seq = ?"""
STANDING = f"""SELECT {STATE}, ifnull(lease.fence, work.fence), ifnull(lease.holder, work.holder), origin, address
 {FROM} WHERE work.seq = ?"""
HISTORY = "SELECT seq, at, attempt, holder, what, reason FROM history WHERE seq = ? ORDER BY rowid"
# Of the newest only, so that a pattern that nothing matches does not hold up the broker.
RECENT = f"""SELECT {BRIEF} FROM (SELECT * FROM work ORDER BY seq DESC LIMIT 20000) AS work
 LEFT JOIN lease ON lease.seq = work.seq
 WHERE '/' || address GLOB '*/' || ? AND NOT '/' || address GLOB '*/' || ? ORDER BY work.seq DESC LIMIT ?"""
HELD = """SELECT seq, lease.fence, origin, id, address, lease.attempt, max_attempts, lease.holder, size
 FROM lease CROSS JOIN work USING (seq) ORDER BY seq"""
NEXT_DUE = "SELECT min(due) FROM work WHERE due IS NOT NULL"
NEXT_BEGINS = "SELECT min(not_before) FROM work WHERE not_before IS NOT NULL"
NEXT_EXPIRES = """SELECT expires_at FROM work WHERE state = 0 AND expires_at IS NOT NULL
 AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.seq = work.seq) ORDER BY expires_at LIMIT 1"""
SETTLED = "state > 1 AND state <> 3"
"""DONE, EXPIRED or PURGED, in the words of the index."""
REMEMBERED_SINCE = f"SELECT min(changed_at) FROM work WHERE {SETTLED}"


class Reading:
    """The part of Store that changes nothing."""

    _db: sqlite3.Connection

    def _complete(self) -> sqlite3.Connection:
        """Return the connection once all there is to read is in the tables."""
        raise NotImplementedError

    def load(self) -> Snapshot:
        """See Store."""
        with translated():
            db = self._complete()
            clock, next_seq, forgotten = db.execute("SELECT at, next_seq, forgotten FROM clock").fetchone()
            top = db.execute("SELECT max(seq) FROM work").fetchone()[0] or 0
            counts = {address: Counts(*numbers) for address, *numbers in db.execute("SELECT * FROM counts")}
            held = [HeldItem(*row) for row in db.execute(HELD)]
        return Snapshot(clock, max(next_seq, top + 1), held, counts, forgotten)

    def next_times(self) -> tuple[float | None, float | None]:
        """See Store."""
        due, begins, expires = (self._time(query) for query in (NEXT_DUE, NEXT_BEGINS, NEXT_EXPIRES))
        return due, min((at for at in (begins, expires) if at is not None), default=None)

    def remembered_since(self) -> float | None:
        """See Store."""
        return self._time(REMEMBERED_SINCE)

    def _time(self, query: str) -> float | None:
        with translated():
            row = self._db.execute(query).fetchone()
        return None if row is None or row[0] is None else float(row[0])

    def find(self, seq: int) -> Standing | None:
        """See Store."""
        with translated():
            row = self._complete().execute(STANDING, (seq,)).fetchone()
        return None if row is None else Standing(State(row[0]), *row[1:])

    def knows(self, origin: str, message: str) -> bool:
        """See Store."""
        with translated():
            row = self._db.execute("SELECT 1 FROM work WHERE origin = ? AND id = ?", (origin, message)).fetchone()
        return row is not None

    def recent(self, limit: int, only: str = "*", without: str = "") -> list[Brief]:
        """See Store."""
        with translated():
            return _briefs(self._complete().execute(RECENT, (only, without, limit)).fetchall())

    def browse(self, address: str, state: State, after: int, limit: int) -> list[Brief]:
        """See Store."""
        query = BROWSE % IN_STATE.get(state, f"state = {state:d}")
        with translated():
            return _briefs(self._complete().execute(query, (after, address, address.count("/"), limit)).fetchall())

    def look(self, seq: int) -> Detail | None:
        """See Store."""
        with translated():
            row = self._complete().execute(LOOK, (seq,)).fetchone()
            history = tuple(Record(*line) for line in self._db.execute(HISTORY, (seq,)))
        if row is None:
            return None
        fields: list[Any] = [*row[:4], State(row[4]), *row[5:-1], row[-1] or b"", history]
        return Detail(*fields)


def _briefs(rows: Iterable[tuple[Any, ...]]) -> list[Brief]:
    return [Brief(seq, origin, id_, address, State(state), *rest) for seq, origin, id_, address, state, *rest in rows]

"""The embedded store: SQLite. This part makes the changes; see schema.py for the tables."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from sqlite3 import Connection

import msgspec

from appliance.queue.errors import StoreDamaged, StoreFailed
from appliance.queue.fresh import Fresh, Hand
from appliance.queue.sqlite_file import PAGE, Checkpoints, connect, migrate, rewrite_log, translated
from appliance.queue.sqlite_reading import SETTLED, Reading
from appliance.queue.sqlite_still import SqliteStill
from appliance.queue.store import Counts, Given, NewItem, Purged, Record, Requeued, State, TakenItem

CHANGES_A_PAGE = 16
PAGES_A_COMMIT = 8
"""About how many pages go to the log: rounded up, each table that is touched has one that is changed."""

Line = tuple[str, str]
"""An address and a key: of its items only the eldest can be leased, and only while no other is."""

INSERT = """INSERT OR IGNORE INTO work (seq, origin, id, address, state, attempt, max_attempts, fence, holder, key, due,
 not_before, expires_at, published_at, changed_at, size, reason, waybill)
 VALUES (?,?,?,?,0,0,?,0,'',?,?,?,?,?,?,?,'',?)"""
INSERT_PLAIN = """INSERT OR IGNORE INTO work (seq, origin, id, address, state, attempt, max_attempts, fence, holder,
 published_at, changed_at, size, reason) VALUES (?1,?2,?3,?4,0,0,?5,0,'',?6,?6,?7,'')"""
"""For a batch in which no item has more than it must: a third less work than INSERT."""
INSERT_BODY = "INSERT INTO body VALUES (?,?)"
DROP_BODIES = "DELETE FROM body WHERE seq BETWEEN ? AND ?"
TAKE = """SELECT seq, fence, origin, id, attempt, max_attempts, published_at, data, expires_at, waybill
 FROM ready CROSS JOIN work USING (seq) CROSS JOIN body USING (seq)
 WHERE ready.address = ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY seq LIMIT ?"""
LEASE = """INSERT INTO lease SELECT seq, fence + 1, attempt + 1, ?, ?, key FROM work WHERE seq BETWEEN ? AND ?"""
END_LEASES = "DELETE FROM lease WHERE seq BETWEEN ? AND ?"
FINISH = """UPDATE work SET state = 2, changed_at = ?, fence = lease.fence, attempt = lease.attempt,
 holder = lease.holder FROM lease WHERE lease.seq = work.seq AND work.seq BETWEEN ? AND ?"""
FINISH_FRESH = """UPDATE work SET state = 2, changed_at = ?, fence = 1, attempt = 1, holder = ?
 WHERE seq BETWEEN ? AND ?"""
GIVE_BACK = """UPDATE work SET fence = ?2, attempt = ?3, due = ?4, reason = ?5, changed_at = ?6,
 holder = (SELECT holder FROM lease WHERE seq = ?1) WHERE seq = ?1"""
BURY = """UPDATE work SET state = 3, fence = ?2, reason = ?3, changed_at = ?4, (attempt, holder) =
 (SELECT attempt, holder FROM lease WHERE seq = ?1) WHERE seq = ?1"""
LINES = """SELECT DISTINCT address, lease.key FROM json_each(?) CROSS JOIN lease ON lease.seq = value
 CROSS JOIN work ON work.seq = value WHERE lease.key IS NOT NULL"""
READY = """INSERT OR IGNORE INTO ready SELECT address, seq FROM work
 WHERE seq BETWEEN ? AND ? AND state = 0 AND key IS NULL AND due IS NULL AND not_before IS NULL"""
UNREADY = "DELETE FROM ready WHERE address = ? AND seq BETWEEN ? AND ?"
ELDEST = """SELECT seq, due IS NULL AND not_before IS NULL FROM work
 WHERE address = ? AND key = ? AND key IS NOT NULL AND state = 0 ORDER BY seq LIMIT 2"""
IN_HAND = """SELECT 1 FROM lease CROSS JOIN work USING (seq)
 WHERE address = ? AND lease.key = ? AND lease.key IS NOT NULL LIMIT 1"""
DUE = "SELECT seq, address, key FROM work WHERE due IS NOT NULL AND due <= ? LIMIT 5000"
WAKE_DUE = "UPDATE work SET due = NULL WHERE seq = ?"
BEGINS = "SELECT seq, address, key FROM work WHERE not_before IS NOT NULL AND not_before <= ? LIMIT 5000"
WAKE_BEGUN = "UPDATE work SET not_before = NULL WHERE seq = ?"
OVER = """SELECT seq, address, key, size FROM work WHERE state = 0 AND expires_at IS NOT NULL AND expires_at <= ?
 AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.seq = work.seq) LIMIT ?"""
END = "UPDATE work SET state = ?, changed_at = ?, reason = ?, due = NULL, not_before = NULL WHERE seq = ?"
REQUEUE = """UPDATE work SET state = 0, attempt = 0, fence = fence + 1, changed_at = ?1,
 expires_at = iif(expires_at > ?1, expires_at, NULL) WHERE seq = ?2 AND state = 3 RETURNING seq, address, size, key"""
PURGEABLE = """SELECT address, size, state, key FROM work WHERE seq = ?1 AND state IN (0, 3)
 AND NOT EXISTS (SELECT 1 FROM lease WHERE seq = ?1)"""
WRITE_HISTORY = "INSERT INTO history VALUES (?,?,?,?,?,?)"
FORGET = f"SELECT seq FROM work WHERE {SETTLED} AND changed_at < ? ORDER BY changed_at LIMIT ?"
FORGOTTEN = """UPDATE clock SET forgotten = forgotten + ?,
 next_seq = max(next_seq, (SELECT coalesce(max(seq), 0) FROM work) + 1) WHERE only = 1"""
COUNT = "INSERT OR REPLACE INTO counts VALUES (?,?,?,?,?,?,?,?,?)"


def _runs(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of numbers that follow one another: one statement for many rows."""
    first = last = -1
    for seq in seqs:
        if seq != last + 1:
            if last >= 0:
                yield first, last
            first = seq
        last = seq
    if last >= 0:
        yield first, last


def _is_plain(i: NewItem) -> bool:
    return i.key is None and i.due is None and i.not_before is None and i.expires_at is None and i.waybill is None


def _row(i: NewItem) -> tuple[object, ...]:
    at = i.published_at
    times = (i.due, i.not_before, i.expires_at, at, at)
    return (i.seq, i.origin, i.id, i.address, i.max_attempts, i.key, *times, len(i.body), i.waybill)


def _first_time(i: NewItem) -> TakenItem:
    return TakenItem(i.seq, 1, i.origin, i.id, i.address, 1, i.max_attempts, i.published_at, i.body, None, None)


class SqliteStore(Reading):
    """See Store. One process at a time: another is waited for, for `wait_s`. See rewrite_log for `laid_out`.

    What is put and can be leased at once is `fresh` until the transaction ends, or something else looks there: most of
    it is taken, and under a log ended as well, before. With `logged`, a commit does not wait for the disk, since a redo
    log has all that is in it: `commit_turn` says how far, and `secured` how far the disk has it.
    """

    def __init__(self, path: Path, wait_s: float = 5.0, laid_out: int = 0, *, logged: bool = False) -> None:
        self._path = path
        self._open = False
        self._changes = self._bytes = 0
        self._fresh = Fresh()
        with translated():
            self._db = connect(path, wait_s, "NORMAL" if logged else "FULL")
            rewrite_log(path, self._db, laid_out)
            migrate(self._db)
            self._db.execute("PRAGMA cache_spill = OFF")  # so only a commit needs room on the disk
            row = self._db.execute("SELECT turn FROM clock").fetchone()
            if row is None:
                raise StoreDamaged("The queue's store has lost its clock.")
            self.turn = int(row[0])
            """The last turn that was in the tables at the start."""
            self._checkpoints = Checkpoints(path, self._db, self.turn)

    def _begin(self) -> Connection:
        """Return the connection within a transaction, everything being in its tables."""
        db = self._going_on()
        if self._fresh:
            self._write_down(db)
        return db

    def _going_on(self) -> Connection:
        """Return the connection within a transaction."""
        if not self._open:
            self._db.execute("BEGIN IMMEDIATE")
            self._open = True
        return self._db

    def _complete(self) -> Connection:
        """See Reading."""
        return self._begin() if self._fresh else self._db

    def _write_down(self, db: Connection) -> None:
        """Give what is fresh its rows."""
        fresh = self._fresh
        bodies = fresh.bodies()
        if bodies:
            db.executemany(INSERT_BODY, bodies)
            self._bytes += sum([len(body) for _, body in bodies])
            db.executemany(READY, _runs(fresh.ready()))
            for hand, seqs in fresh.held():
                db.executemany(LEASE, [(*hand, *run) for run in _runs(seqs)])
        rows = [(address, *msgspec.structs.astuple(entry)) for address, entry in fresh.counts.items()]
        db.executemany(COUNT, rows)
        fresh.clear()

    @property
    def changed(self) -> bool:
        """See Store."""
        return self._open

    @property
    def changes(self) -> int:
        """How many rows have changed since the last commit."""
        return self._db.total_changes - self._changes if self._open else 0

    @property
    def secured(self) -> int:
        """The last turn whose commit is on disk."""
        return self._checkpoints.secured

    def secure_soon(self) -> None:
        """Let a thread have all commits on disk; `secured` says when they are."""
        self._checkpoints.secure_soon()

    def secure(self) -> None:
        """Have all commits on disk. Raises StoreFailed."""
        self._checkpoints.secure()

    @property
    def waits_for_room(self) -> bool:
        """See Store."""
        return self._checkpoints.waiting

    def put(self, items: Sequence[NewItem]) -> list[bool]:
        """See Store."""
        with translated():
            plain = all(map(_is_plain, items))
            db = self._going_on() if plain else self._begin()
            before = db.total_changes
            if plain:
                rows = [(i.seq, i.origin, i.id, i.address, i.max_attempts, i.published_at, len(i.body)) for i in items]
                db.executemany(INSERT_PLAIN, rows)
            else:
                db.executemany(INSERT, [_row(item) for item in items])
            stored: Sequence[NewItem] = items
            answers = [True] * len(items)
            span = (items[0].seq, items[-1].seq)
            if db.total_changes - before < len(items):
                seqs = {row[0] for row in db.execute("SELECT seq FROM work WHERE seq BETWEEN ? AND ?", span)}
                stored = [item for item in items if item.seq in seqs]
                answers = [item.seq in seqs for item in items]
            if plain:
                self._fresh.add(stored)
            else:
                db.executemany(INSERT_BODY, [(item.seq, item.body) for item in stored])
                self._bytes += sum([len(item.body) for item in stored])
                db.execute(READY, span)
                self._line_up((i.address, i.key) for i in stored if i.key is not None)
            return answers

    def take(self, address: str, holder: str, limit: int, max_bytes: int, wall: float) -> tuple[list[TakenItem], bool]:
        """See Store."""
        with translated():
            taken: list[TakenItem] = []
            room = max_bytes
            more = False
            cursor = self._db.execute(TAKE, (address, wall, limit))
            for seq, fence, origin, id_, attempt, most, published_at, data, *rest in cursor:
                room -= len(data)
                if taken and room < 0:
                    more = True
                    break
                item = TakenItem(seq, fence + 1, origin, id_, address, attempt + 1, most, published_at, data, *rest)
                taken.append(item)
            cursor.close()
            if taken:
                db = self._going_on()
                runs = list(_runs(item.seq for item in taken))
                db.executemany(UNREADY, [(address, *run) for run in runs])
                db.executemany(LEASE, [(holder, wall, *run) for run in runs])
            if not more and len(taken) < limit:
                left = limit - len(taken)
                fresh, more = self._fresh.take(address, Hand(holder, wall), left, room, first=not taken)
                taken += map(_first_time, fresh)
            return taken, more or len(taken) == limit

    def finish(self, seqs: Sequence[int], wall: float) -> None:
        """See Store."""
        with translated():
            db = self._going_on()
            fresh, others = self._fresh.finish(seqs)
            for hand, ended in fresh.items():
                db.executemany(FINISH_FRESH, [(wall, hand.holder, *run) for run in _runs(sorted(ended))])
            if others:
                runs = list(_runs(sorted(others)))
                db.executemany(FINISH, [(wall, *run) for run in runs])
                db.executemany(DROP_BODIES, runs)
                self._end_leases(others)

    def give_back(self, given: Iterable[Given], wall: float) -> None:
        """See Store."""
        with translated():
            rows = [(g.seq, g.fence, g.attempt, g.due, g.reason, wall) for g in given]
            self._begin().executemany(GIVE_BACK, rows)
            self._end_leases([row[0] for row in rows])
            self._db.executemany(READY, _runs(sorted(row[0] for row in rows)))

    def bury(self, seq: int, fence: int, wall: float, reason: str) -> None:
        """See Store."""
        with translated():
            self._begin().execute(BURY, (seq, fence, reason, wall))
            self._end_leases([seq])

    def _end_leases(self, seqs: Sequence[int]) -> None:
        """Drop the leases, once the items themselves are as they should be, and let the next of their keys come up."""
        keyed = self._db.execute("SELECT 1 FROM lease WHERE key IS NOT NULL LIMIT 1").fetchone() is not None
        lines: list[Line] = self._db.execute(LINES, (json.dumps(seqs),)).fetchall() if keyed else []
        self._db.executemany(END_LEASES, _runs(sorted(seqs)))
        self._line_up(lines)

    def _line_up(self, lines: Iterable[Line]) -> None:
        """Make of each key the eldest item ready, and no other; none while one is leased.

        What was ready before must be one of the two eldest.
        """
        for line in dict.fromkeys(lines):
            in_hand = self._db.execute(IN_HAND, line).fetchone() is not None
            eldest = self._db.execute(ELDEST, line).fetchall()
            for place, (seq, begun) in enumerate(eldest):
                wanted = place == 0 and begun and not in_hand
                if wanted:
                    self._db.execute("INSERT OR IGNORE INTO ready VALUES (?,?)", (line[0], seq))
                else:
                    self._db.execute(UNREADY, (line[0], seq, seq))

    def write_history(self, records: Iterable[Record]) -> None:
        """See Store."""
        with translated():
            rows = [(r.seq, r.at, r.attempt, r.holder, r.what, r.reason) for r in records]
            self._begin().executemany(WRITE_HISTORY, rows)

    def wake(self, now: float, wall: float) -> dict[str, int]:
        """See Store."""
        woken: dict[str, int] = {}
        with translated():
            for find, change, at in ((DUE, WAKE_DUE, now), (BEGINS, WAKE_BEGUN, wall)):
                found = self._db.execute(find, (at,)).fetchall()
                if not found:
                    continue
                db = self._begin()
                db.executemany(change, [(seq,) for seq, _address, _key in found])
                db.executemany(READY, [(seq, seq) for seq, _address, _key in found])
                self._line_up((address, key) for _seq, address, key in found if key is not None)
                for _seq, address, _key in found:
                    woken[address] = woken.get(address, 0) + 1
        return woken

    def expire(self, wall: float, limit: int) -> list[tuple[str, int]]:
        """See Store."""
        with translated():
            found = self._db.execute(OVER, (wall, limit)).fetchall()
            if found:
                self._begin()
                self._end([row[:3] for row in found], State.EXPIRED, wall, "expired")
        return [(address, size) for _seq, address, _key, size in found]

    def _end(self, items: Sequence[tuple[int, str, str | None]], state: State, wall: float, reason: str) -> None:
        """End what is not leased: (seq, address, key) of each."""
        db = self._db
        db.executemany(END, [(state, wall, reason, seq) for seq, _address, _key in items])
        db.executemany(UNREADY, [(address, seq, seq) for seq, address, _key in items])
        db.executemany(DROP_BODIES, [(seq, seq) for seq, _address, _key in items])
        self._line_up((address, key) for _seq, address, key in items if key is not None)

    def requeue(self, seqs: Sequence[int], wall: float) -> list[Requeued]:
        """See Store."""
        found = []
        with translated():
            db = self._begin()
            for wanted in seqs:
                for seq, address, size, key in db.execute(REQUEUE, (wall, wanted)).fetchall():
                    found.append(Requeued(seq, address, size))
                    db.execute(READY, (seq, seq))
                    if key is not None:
                        self._line_up([(address, key)])
            db.executemany(WRITE_HISTORY, [(item.seq, wall, 0, "", "requeued", "") for item in found])
        return found

    def purge(self, seqs: Sequence[int], wall: float) -> list[Purged]:
        """See Store."""
        found = []
        with translated():
            db = self._begin()
            for seq in seqs:
                for address, size, was, key in db.execute(PURGEABLE, (seq,)).fetchall():
                    found.append(Purged(seq, address, size, State(was)))
                    self._end([(seq, address, key)], State.PURGED, wall, "purged")
            db.executemany(WRITE_HISTORY, [(item.seq, wall, 0, "", "purged", "") for item in found])
        return found

    def forget(self, before: float, limit: int) -> int:
        """See Store."""
        with translated():
            seqs = [row[0] for row in self._db.execute(FORGET, (before, limit))]
            if seqs:
                runs = list(_runs(sorted(seqs)))
                db = self._begin()
                db.execute(FORGOTTEN, (len(seqs),))
                db.executemany("DELETE FROM work WHERE seq BETWEEN ? AND ?", runs)
                db.executemany("DELETE FROM history WHERE seq BETWEEN ? AND ?", runs)
        return len(seqs)

    def progress(self, clock: float | None, counts: Mapping[str, Counts]) -> None:
        """See Store."""
        with translated():
            db = self._going_on()
            self._fresh.counts.update((address, copy(entry)) for address, entry in counts.items())
            if clock is not None:
                db.execute("UPDATE clock SET at = ? WHERE only = 1", (clock,))

    def commit(self) -> None:
        """See Store."""
        if not self._open:
            return
        with translated():
            self._begin().execute("COMMIT")
        self._open = False
        changes = self._db.total_changes
        pages = PAGES_A_COMMIT + (changes - self._changes) // CHANGES_A_PAGE + self._bytes // PAGE
        self._changes, self._bytes = changes, 0
        self._checkpoints.written(pages)

    def commit_turn(self, turn: int) -> None:
        """Commit all turns up to this one. Raises StoreFull, StoreFailed."""
        with translated():
            db = self._going_on()
            if not db.in_transaction:
                raise StoreFailed("An error has undone what the queue's store did.")
            db.execute("UPDATE clock SET turn = ? WHERE only = 1", (turn,))
        self.commit()
        self._checkpoints.committed(turn)

    def rollback(self) -> None:
        """See Store."""
        self._fresh.clear()
        if self._open:
            with translated():
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            self._open = False
            self._changes = self._db.total_changes
            self._checkpoints.make()

    def tidy(self) -> None:
        """See Store. A thread does it, and what it could not do is told here."""
        self._checkpoints.expect_sound()

    def still(self) -> SqliteStill:
        """See Store. The log is brought into the file, and grows from then on until the still is closed."""
        self._checkpoints.hold()
        return SqliteStill(self._path, self._checkpoints.go_on)

    def compact(self, pages: int) -> int:
        """See Store."""
        with translated():
            before = self._free_pages()
            self._db.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` stops after one page
            freed = before - self._free_pages()
        self._checkpoints.written(freed)
        return freed

    def _free_pages(self) -> int:
        return int(self._db.execute("PRAGMA freelist_count").fetchone()[0])

    def close(self) -> None:
        """See Store. SQLite undoes by itself, and after an I/O error nothing else is to be tried."""
        self._open = False
        self._checkpoints.close()
        self._db.close()

"""The embedded store: SQLite, WAL mode, `synchronous=FULL`: a commit is an fsync of the log (sqlite.org/wal.html)."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from appliance.queue.errors import StoreFailed, StoreFull
from appliance.queue.schema import STEPS
from appliance.queue.sqlite_still import SqliteStill
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
    TakenItem,
)

PAGE = 8192
CACHE_KIB = 32 * 1024
CHECKPOINT_PAGES = 4000
CHUNK = 2**20

INSERT = """INSERT OR IGNORE INTO work (seq, origin, id, address, state, attempt, max_attempts, fence, holder, key, due,
 not_before, expires_at, published_at, changed_at, size, reason, waybill)
 VALUES (?,?,?,?,0,0,?,0,'',?,?,?,?,?,?,?,'',?)"""
TAKE = """SELECT work.seq, fence, origin, id, address, attempt, max_attempts, published_at, data, expires_at, waybill
 FROM work JOIN body ON body.seq = work.seq
 WHERE address = ? AND state = 0 AND due IS NULL AND not_before IS NULL AND (expires_at IS NULL OR expires_at > ?)
 AND (key IS NULL OR NOT EXISTS (SELECT 1 FROM work AS elder WHERE elder.address = work.address
  AND elder.key = work.key AND elder.key IS NOT NULL AND elder.state <= 1
  AND (elder.seq < work.seq OR elder.state = 1)))
 ORDER BY work.seq LIMIT ?"""
LEASE = """UPDATE work SET state = 1, attempt = attempt + 1, fence = fence + 1, holder = ?, changed_at = ?
 WHERE seq BETWEEN ? AND ?"""
FINISH = "UPDATE work SET state = 2, changed_at = ? WHERE seq BETWEEN ? AND ?"
DROP_BODIES = "DELETE FROM body WHERE seq BETWEEN ? AND ?"
GIVE_BACK = "UPDATE work SET state = 0, fence = ?, attempt = ?, due = ?, reason = ?, changed_at = ? WHERE seq = ?"
DUE = "SELECT seq, address FROM work WHERE state = 0 AND due IS NOT NULL AND due <= ? LIMIT 5000"
WAKE_DUE = "UPDATE work SET due = NULL WHERE seq = ?"
BEGINS = "SELECT seq, address FROM work WHERE state = 0 AND not_before IS NOT NULL AND not_before <= ? LIMIT 5000"
WAKE_BEGUN = "UPDATE work SET not_before = NULL WHERE seq = ?"
BURY = "UPDATE work SET state = 3, fence = ?, changed_at = ?, reason = ? WHERE seq = ?"
OVER = """SELECT seq, address, size FROM work
 WHERE state = 0 AND expires_at IS NOT NULL AND expires_at <= ? LIMIT ?"""
EXPIRE = "UPDATE work SET state = 4, changed_at = ?, reason = 'expired' WHERE seq = ?"
SETTLED = "state > 1 AND state <> 3"
"""DONE, EXPIRED or PURGED, in the words of the index."""
FORGET = f"SELECT seq FROM work WHERE {SETTLED} AND changed_at < ? ORDER BY changed_at LIMIT ?"
REQUEUE = """UPDATE work SET state = 0, attempt = 0, fence = fence + 1, due = NULL, not_before = NULL, changed_at = ?,
 expires_at = CASE WHEN expires_at > ? THEN expires_at END WHERE seq = ? AND state = 3
 RETURNING seq, address, size"""
PURGEABLE = "SELECT address, size, state FROM work WHERE seq = ? AND state IN (0, 3)"
PURGE = "UPDATE work SET state = 5, changed_at = ? WHERE seq = ?"
COUNT = "INSERT OR REPLACE INTO counts VALUES (?,?,?,?,?,?,?,?,?)"
BRIEF = """seq, origin, id, address, state, attempt, max_attempts, size, published_at, changed_at, holder, reason"""
# `*` stands for anything but a slash: where there are as many in the address as in the pattern, it did. The state is
# written out, so that the planner sees the index for it.
BROWSE = f"""SELECT {BRIEF} FROM work WHERE state = %d AND seq > ? AND address GLOB ?
 AND length(address) - length(replace(address, '/', '')) = ? ORDER BY seq LIMIT ?"""
LOOK = f"""SELECT {BRIEF}, waybill, key, due, not_before, expires_at, data
 FROM work LEFT JOIN body ON body.seq = work.seq WHERE work.seq = ?""".replace("seq, origin", "work.seq, origin")
STANDING = "SELECT state, fence, holder, origin, address FROM work WHERE seq = ?"
HISTORY = "SELECT seq, at, attempt, holder, what, reason FROM history WHERE seq = ? ORDER BY rowid"
WRITE_HISTORY = "INSERT INTO history VALUES (?,?,?,?,?,?)"
# Of the newest only, so that a pattern that nothing matches does not hold up the broker.
RECENT = f"""SELECT {BRIEF} FROM (SELECT * FROM work ORDER BY seq DESC LIMIT 20000)
 WHERE '/' || address GLOB '*/' || ? AND NOT '/' || address GLOB '*/' || ? ORDER BY seq DESC LIMIT ?"""
LEASED = """SELECT seq, fence, origin, id, address, attempt, max_attempts, holder, size
 FROM work WHERE state = 1 ORDER BY seq"""


def _briefs(rows: Iterable[tuple[Any, ...]]) -> list[Brief]:
    return [Brief(seq, origin, id_, address, State(state), *rest) for seq, origin, id_, address, state, *rest in rows]


def _row(i: NewItem) -> tuple[object, ...]:
    at = i.published_at
    times = (i.due, i.not_before, i.expires_at, at, at)
    return (i.seq, i.origin, i.id, i.address, i.max_attempts, i.key, *times, len(i.body), i.waybill)


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


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Tell apart a full disk, after which one may go on, from everything else, after which one may not."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise StoreFull("The disk has no room for the queue.") from error
        raise StoreFailed(f"The queue's store failed: {error}.") from error


class SqliteStore:
    """See Store. One process at a time: the database is held in exclusive locking mode."""

    def __init__(self, path: Path, wait_s: float = 5.0) -> None:
        self._path = path
        self._open = False
        with _translated():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=wait_s)
            for pragma in (
                "locking_mode = EXCLUSIVE",  # first, or the log's index becomes a shared file (sqlite.org/wal.html)
                f"page_size = {PAGE}", "auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = FULL",
                f"cache_size = -{CACHE_KIB}", f"wal_autocheckpoint = {CHECKPOINT_PAGES}", "temp_store = MEMORY",
                f"journal_size_limit = {CHECKPOINT_PAGES * PAGE * 4}",
            ):  # fmt: skip
                self._db.execute(f"PRAGMA {pragma}")
            self._rewrite_log()
            self._migrate()

    def _rewrite_log(self) -> None:
        """Make sure that what the log shows is on disk.

        After a failed fsync Linux goes on to show what was never written, and a new sync does not write it (Rebello et
        al., Can Applications Recover from fsync Failures?, USENIX ATC 2020). New commits behind such a gap would be
        lost with the next power cut, so the log is written over itself before any.
        """
        log = self._path.with_name(self._path.name + "-wal")
        self._db.execute("SELECT 1 FROM sqlite_schema").fetchone()  # from here on nobody else has it
        try:
            with log.open("r+b") as file:
                while data := file.read(CHUNK):
                    file.seek(-len(data), os.SEEK_CUR)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreFailed(f"The queue's log cannot be written: {error}.") from error

    def _migrate(self) -> None:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(STEPS):
            raise StoreFailed(f"The queue's store has schema {version}, this firmware reads {len(STEPS)}.")
        for number, step in enumerate(STEPS[version:], start=version + 1):
            self._db.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")

    def _begin(self) -> sqlite3.Connection:
        if not self._open:
            self._db.execute("BEGIN IMMEDIATE")
            self._open = True
        return self._db

    @property
    def changed(self) -> bool:
        """See Store."""
        return self._open

    def load(self) -> Snapshot:
        """See Store."""
        with _translated():
            clock, next_seq = self._db.execute("SELECT at, next_seq FROM clock").fetchone()
            top = self._db.execute("SELECT max(seq) FROM work").fetchone()[0] or 0
            settled = self._db.execute(f"SELECT count(*) FROM work WHERE {SETTLED}").fetchone()[0]
            counts = {address: Counts(*numbers) for address, *numbers in self._db.execute("SELECT * FROM counts")}
            held = [HeldItem(*row) for row in self._db.execute(LEASED)]
        return Snapshot(clock, max(next_seq, top + 1), held, counts, settled)

    def put(self, items: Sequence[NewItem]) -> list[bool]:
        """See Store."""
        with _translated():
            db = self._begin()
            before = db.total_changes
            db.executemany(INSERT, [_row(item) for item in items])
            if db.total_changes - before == len(items):
                db.executemany("INSERT INTO body VALUES (?,?)", [(item.seq, item.body) for item in items])
                return [True] * len(items)
            span = (items[0].seq, items[-1].seq)
            stored = {row[0] for row in db.execute("SELECT seq FROM work WHERE seq BETWEEN ? AND ?", span)}
            db.executemany("INSERT INTO body VALUES (?,?)", [(i.seq, i.body) for i in items if i.seq in stored])
            return [item.seq in stored for item in items]

    def take(self, address: str, holder: str, limit: int, max_bytes: int, wall: float) -> tuple[list[TakenItem], bool]:
        """See Store."""
        with _translated():
            taken: list[TakenItem] = []
            room = max_bytes
            more = False
            cursor = self._db.execute(TAKE, (address, wall, limit))
            for seq, fence, origin, id_, _address, attempt, most, published_at, data, *rest in cursor:
                room -= len(data)
                if taken and room < 0:
                    more = True
                    break
                item = TakenItem(seq, fence + 1, origin, id_, address, attempt + 1, most, published_at, data, *rest)
                taken.append(item)
            cursor.close()
            if taken:
                self._begin().executemany(LEASE, [(holder, wall, *run) for run in _runs(t.seq for t in taken)])
            return taken, more or len(taken) == limit

    def finish(self, seqs: Sequence[int], wall: float) -> None:
        """See Store."""
        with _translated():
            db = self._begin()
            runs = list(_runs(sorted(seqs)))
            db.executemany(FINISH, [(wall, *run) for run in runs])
            db.executemany(DROP_BODIES, runs)

    def give_back(self, given: Iterable[Given], wall: float) -> None:
        """See Store."""
        with _translated():
            self._begin().executemany(GIVE_BACK, [(g.fence, g.attempt, g.due, g.reason, wall, g.seq) for g in given])

    def bury(self, seq: int, fence: int, wall: float, reason: str) -> None:
        """See Store."""
        with _translated():
            self._begin().execute(BURY, (fence, wall, reason, seq))

    def write_history(self, records: Iterable[Record]) -> None:
        """See Store."""
        with _translated():
            rows = [(r.seq, r.at, r.attempt, r.holder, r.what, r.reason) for r in records]
            self._begin().executemany(WRITE_HISTORY, rows)

    def wake(self, now: float, wall: float) -> dict[str, int]:
        """See Store."""
        woken: dict[str, int] = {}
        with _translated():
            for find, change, at in ((DUE, WAKE_DUE, now), (BEGINS, WAKE_BEGUN, wall)):
                found = self._db.execute(find, (at,)).fetchall()
                if found:
                    self._begin().executemany(change, [(seq,) for seq, _address in found])
                for _seq, address in found:
                    woken[address] = woken.get(address, 0) + 1
        return woken

    def expire(self, wall: float, limit: int) -> list[tuple[str, int]]:
        """See Store."""
        with _translated():
            found = self._db.execute(OVER, (wall, limit)).fetchall()
            if found:
                db = self._begin()
                db.executemany(EXPIRE, [(wall, seq) for seq, _address, _size in found])
                db.executemany("DELETE FROM body WHERE seq = ?", [(seq,) for seq, _address, _size in found])
        return [(address, size) for _seq, address, size in found]

    def next_times(self) -> tuple[float | None, float | None]:
        """See Store."""
        with _translated():
            due = self._first("SELECT min(due) FROM work WHERE state = 0 AND due IS NOT NULL")
            begins = self._first("SELECT min(not_before) FROM work WHERE state = 0 AND not_before IS NOT NULL")
            expires = self._first("SELECT min(expires_at) FROM work WHERE state = 0 AND expires_at IS NOT NULL")
        return due, min((at for at in (begins, expires) if at is not None), default=None)

    def _first(self, query: str) -> float | None:
        value = self._db.execute(query).fetchone()[0]
        return None if value is None else float(value)

    def forget(self, before: float, limit: int) -> int:
        """See Store."""
        with _translated():
            seqs = self._db.execute(FORGET, (before, limit)).fetchall()
            if seqs:
                db = self._begin()
                db.executemany("DELETE FROM work WHERE seq = ?", seqs)
                db.executemany("DELETE FROM history WHERE seq = ?", seqs)
        return len(seqs)

    def requeue(self, seqs: Sequence[int], wall: float) -> list[Requeued]:
        """See Store."""
        with _translated():
            db = self._begin()
            found = [Requeued(*row) for seq in seqs for row in db.execute(REQUEUE, (wall, wall, seq)).fetchall()]
            db.executemany(WRITE_HISTORY, [(item.seq, wall, 0, "", "requeued", "") for item in found])
        return found

    def purge(self, seqs: Sequence[int], wall: float) -> list[Purged]:
        """See Store."""
        with _translated():
            db = self._begin()
            found = []
            for seq in dict.fromkeys(seqs):
                for address, size, was in db.execute(PURGEABLE, (seq,)).fetchall():
                    found.append(Purged(seq, address, size, State(was)))
            db.executemany(PURGE, [(wall, item.seq) for item in found])
            db.executemany("DELETE FROM body WHERE seq = ?", [(item.seq,) for item in found])
            db.executemany(WRITE_HISTORY, [(item.seq, wall, 0, "", "purged", "") for item in found])
        return found

    def progress(self, clock: float, next_seq: int, counts: Mapping[str, Counts]) -> None:
        """See Store."""
        with _translated():
            db = self._begin()
            db.executemany(COUNT, [(address, *msgspec.structs.astuple(entry)) for address, entry in counts.items()])
            db.execute("UPDATE clock SET at = ?, next_seq = ?", (clock, next_seq))

    def find(self, seq: int) -> Standing | None:
        """See Store."""
        with _translated():
            row = self._db.execute(STANDING, (seq,)).fetchone()
        return None if row is None else Standing(State(row[0]), *row[1:])

    def knows(self, origin: str, message: str) -> bool:
        """See Store."""
        with _translated():
            row = self._db.execute("SELECT 1 FROM work WHERE origin = ? AND id = ?", (origin, message)).fetchone()
        return row is not None

    def recent(self, limit: int, only: str = "*", without: str = "") -> list[Brief]:
        """See Store."""
        with _translated():
            rows = self._db.execute(RECENT, (only, without, limit)).fetchall()
        return _briefs(rows)

    def browse(self, address: str, state: State, after: int, limit: int) -> list[Brief]:
        """See Store."""
        with _translated():
            return _briefs(self._db.execute(BROWSE % state, (after, address, address.count("/"), limit)).fetchall())

    def look(self, seq: int) -> Detail | None:
        """See Store."""
        with _translated():
            row = self._db.execute(LOOK, (seq,)).fetchone()
            history = tuple(Record(*line) for line in self._db.execute(HISTORY, (seq,)))
        if row is None:
            return None
        fields: list[Any] = [*row[:4], State(row[4]), *row[5:-1], row[-1] or b"", history]
        return Detail(*fields)

    def commit(self) -> None:
        """See Store."""
        if self._open:
            with _translated():
                self._db.execute("COMMIT")
            self._open = False

    def rollback(self) -> None:
        """See Store."""
        if self._open:
            with _translated():
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            self._open = False
            self._start_log_anew()

    def _start_log_anew(self) -> None:
        """Bring the log into the file, so that it is written from its beginning again: a full disk has room for that.

        Not while a still reads the file.
        """
        if self._db.execute("PRAGMA wal_autocheckpoint").fetchone()[0]:
            with contextlib.suppress(StoreFull), _translated():  # the file itself may have to grow
                self._db.execute("PRAGMA wal_checkpoint").fetchall()

    def still(self) -> SqliteStill:
        """See Store. The log is brought into the file, and grows from then on until the still is closed."""
        with _translated():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._db.execute("PRAGMA wal_autocheckpoint = 0")
        return SqliteStill(self._path, self._checkpoint_again)

    def _checkpoint_again(self) -> None:
        self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    def compact(self, pages: int) -> int:
        """See Store."""
        with _translated():
            before = self._free_pages()
            self._db.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` stops after one page
            return before - self._free_pages()

    def _free_pages(self) -> int:
        return int(self._db.execute("PRAGMA freelist_count").fetchone()[0])

    def close(self) -> None:
        """See Store. SQLite undoes by itself, and after an I/O error nothing else is to be tried."""
        self._open = False
        self._db.close()

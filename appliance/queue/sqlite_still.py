"""A SQLite store held still: its file, while all that is new goes to the log beside it.

Nobody writes the file between two checkpoints (sqlite.org/wal.html), so another connection may take it for immutable
(sqlite.org/uri.html) and read it in a thread of its own, without a lock and for as long as it likes.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from appliance.durable import sync
from appliance.queue.errors import CopyFailed
from appliance.queue.schema import STEPS
from appliance.queue.sqlite_reading import SETTLED

BODIES = """SELECT count(*) FILTER (WHERE body.seq IS NULL), (SELECT count(*) FROM body) - count(body.seq)
 FROM work LEFT JOIN body ON body.seq = work.seq WHERE state IN (0, 3)"""
MISCOUNTED = """SELECT address FROM (SELECT address, sum(state = 0 AND lease.seq IS NULL) AS r, count(lease.seq) AS l,
  sum(state = 3) AS d, coalesce(sum(size) FILTER (WHERE state IN (0, 3)), 0) AS b
  FROM work LEFT JOIN lease USING (seq) GROUP BY address)
 FULL JOIN counts USING (address)
 WHERE (ifnull(ready, 0), ifnull(leased, 0), ifnull(dead, 0), ifnull(bytes, 0))
  IS NOT (ifnull(r, 0), ifnull(l, 0), ifnull(d, 0), ifnull(b, 0))"""
REMEMBERED = f"""SELECT (SELECT coalesce(sum(done_total + expired_total + purged_total), 0) FROM counts) - forgotten,
 (SELECT count(*) FROM work WHERE {SETTLED}) FROM clock"""
ASTRAY = """SELECT count(*) FROM work LEFT JOIN lease USING (seq) LEFT JOIN ready USING (address, seq)
 WHERE (ready.seq IS NOT NULL AND (state > 0 OR lease.seq IS NOT NULL OR due IS NOT NULL OR not_before IS NOT NULL))
  OR (lease.seq IS NOT NULL AND state > 0)
  OR (state = 0 AND work.key IS NULL AND due IS NULL AND not_before IS NULL AND lease.seq IS NULL
   AND ready.seq IS NULL)"""
TABLES = """SELECT type, name, tbl_name FROM sqlite_schema
 UNION SELECT 'column', tables.name, columns.name FROM sqlite_schema AS tables, pragma_table_info(tables.name)
 AS columns WHERE tables.type = 'table'"""
STRAY = "SELECT count(*) FROM ready LEFT JOIN work USING (seq) WHERE work.address IS NOT ready.address"


class SqliteStill:
    """See Still."""

    def __init__(self, path: Path, let_go: Callable[[], None]) -> None:
        self._path = path
        self._let_go = let_go
        try:
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            let_go()
            hint = "Has the queue as many connections as it may have open files? It goes on with those that it has."
            raise CopyFailed(f"The store could not be opened once more: {error}.", hint=hint) from error

    def copy(self, path: Path, leave_free: int = 0) -> int:
        """See Still."""
        candidate = path.with_name(f"{path.name}.new")
        try:
            candidate.unlink(missing_ok=True)
            room = os.statvfs(path.parent)
            if room.f_bavail * room.f_frsize < self._path.stat().st_size + leave_free:
                raise CopyFailed(f"The disk has no room for another {self._path.stat().st_size} bytes.")
            self._db.execute("VACUUM INTO ?", (str(candidate),))
            sync(candidate)
            candidate.rename(path)
            sync(path.parent)
            return path.stat().st_size
        except (OSError, sqlite3.Error) as error:
            candidate.unlink(missing_ok=True)
            raise CopyFailed(f"The store could not be copied to {path}: {error}.") from error

    def check(self) -> list[str]:
        """See Still."""
        try:
            if self._db.execute(TABLES).fetchall() != _tables():
                return ["Its tables are not those of this firmware."]
            if self._db.execute("SELECT count(*) FROM clock").fetchone() != (1,):
                return ["It has lost its clock."]
            found = [row[0] for row in self._db.execute("PRAGMA integrity_check(20)")]
            lost, left = self._db.execute(BODIES).fetchone()
            astray = sum(self._db.execute(query).fetchone()[0] for query in (ASTRAY, STRAY))
            remembered, settled = self._db.execute(REMEMBERED).fetchone()
            wrong = [row[0] for row in self._db.execute(MISCOUNTED)]
        except sqlite3.Error as error:
            return [f"SQLite: {error}."]
        problems = [f"SQLite: {line}." for line in found if line != "ok"]
        if lost:
            problems.append(f"{lost} messages have lost their body.")
        if left:
            problems.append(f"{left} bodies belong to no message that is waiting.")
        if astray:
            problems.append(f"{astray} messages are not where they are looked for.")
        if remembered != settled:
            problems.append(f"{settled} messages have ended, not {remembered}.")
        return problems + [f"The counts of {address} are wrong." for address in wrong]

    def interrupt(self) -> None:
        """See Still."""
        self._db.interrupt()

    def close(self) -> None:
        """See Still."""
        self._db.close()
        self._let_go()


def _tables() -> list[tuple[str, str, str]]:
    """Return what TABLES finds in a store of this firmware."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript("".join(STEPS))
        return db.execute(TABLES).fetchall()

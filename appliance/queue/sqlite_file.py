"""The database file of the SQLite store: opening it, its errors, and bringing its log into it.

WAL mode, `synchronous=FULL`: a commit is an fsync of the log (sqlite.org/wal.html); `NORMAL` where a redo log has what
is in it, and then Checkpoints syncs it later. The VFS `unix-excl` keeps every
other process out (sqlite.org/vfs.html) and lets several connections of this one in. A start does not check the whole
file, which would take seconds for each GB of it: damage is told where it is met, and `Still.check` looks for it.
"""

import contextlib
import logging
import os
import sqlite3
import threading
from pathlib import Path

from appliance.queue.errors import NO_ROOM, StoreDamaged, StoreFailed, StoreFull
from appliance.queue.schema import STEPS

log = logging.getLogger(__name__)

PAGE = 8192
CACHE_KIB = 32 * 1024
LOG_PAGES = 250
"""So many new pages of the log are worth bringing into the file: with more, whoever waits for a sync meanwhile waits
for longer.
"""
LONG_LOG_PAGES = 2000
FEW_PAGES = 500
"""A log that is so long is begun anew as soon as no more than these few are to be brought into the file for that."""
MOST_LOG_PAGES = 4 * LONG_LOG_PAGES
"""With so many in the log the writer waits until they are."""
AGAIN_S = 2.0
"""From a checkpoint that met a full disk to the next."""
LAID_OUT = LONG_LOG_PAGES * PAGE
"""So long is a broker's log from its start on: a commit that lengthens it must have that on disk too, and takes up to
twice as long.
"""
LAID_OUT_PART = 16
"""No more than this part of the free disk is laid out."""
SMALL_PAGES = 8192
"""A file of no more pages is rewritten as a whole where that mends it."""
CHUNK = 2**20
DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class _Translated:
    """See translated; a class, since a generator for each of a turn's dozen statements would be felt."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise StoreFull(NO_ROOM) from error
        if code in DAMAGE:
            raise StoreDamaged(f"The queue's store is damaged: {error}.") from error
        raise StoreFailed(f"The queue's store failed: {error}.") from error


_TRANSLATED = _Translated()


def translated() -> contextlib.AbstractContextManager[None]:
    """Tell apart a full disk, after which one may go on, from everything else, after which one may not."""
    return _TRANSLATED


def connect(path: Path, wait_s: float, synchronous: str = "FULL") -> sqlite3.Connection:
    """Return a connection for this process alone; another process is waited for."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?vfs=unix-excl", uri=True, isolation_level=None, check_same_thread=False,
        timeout=wait_s,
    )  # fmt: skip
    for pragma in (
        f"page_size = {PAGE}", "auto_vacuum = INCREMENTAL", "journal_mode = WAL",
        f"synchronous = {synchronous}", f"cache_size = -{CACHE_KIB}", "wal_autocheckpoint = 0", "temp_store = MEMORY",
        "secure_delete = OFF", f"journal_size_limit = {MOST_LOG_PAGES * PAGE}",
    ):  # fmt: skip
        db.execute(f"PRAGMA {pragma}")
    return db


def rewrite_log(path: Path, db: sqlite3.Connection, laid_out: int = 0) -> None:
    """Make sure that what the log shows is on disk, and that the log is `laid_out` bytes long where there is room.

    After a failed fsync Linux goes on to show what was never written, and a new sync does not write it (Rebello et
    al., Can Applications Recover from fsync Failures?, USENIX ATC 2020). New commits behind such a gap would be
    lost with the next power cut, so the log is written over itself before any.
    """
    db.execute("SELECT 1 FROM sqlite_schema").fetchone()  # from here on nobody else has it
    try:
        with path.with_name(f"{path.name}-wal").open("r+b") as file:
            while data := file.read(CHUNK):
                file.seek(-len(data), os.SEEK_CUR)
                file.write(data)
            disk = os.fstatvfs(file.fileno())
            if laid_out * LAID_OUT_PART <= disk.f_bavail * disk.f_frsize:
                while file.tell() < laid_out:
                    file.write(bytes(min(CHUNK, laid_out - file.tell())))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreFailed(f"The queue's log cannot be written: {error}.") from error


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables up to date. Raises StoreFailed where they are of a newer firmware."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(STEPS):
        raise StoreFailed(f"The queue's store has schema {version}, this firmware reads {len(STEPS)}.")
    for number, step in enumerate(STEPS[version:], start=version + 1):
        db.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
    incremental = 2
    vacuum, pages = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("auto_vacuum", "page_count"))
    if vacuum != incremental and pages <= SMALL_PAGES:
        # Only a rewrite changes that; a large file is not worth the wait at a start, and keeps its unused pages.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("VACUUM")


class Checkpoints:
    """Brings the log into the file, in a thread of its own, so that commits do not wait for it; syncs it, if asked to.

    A checkpoint that meets a full disk is made up for as soon as there is room; any other error ends the store.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, committed: int = 0) -> None:
        self._writer = db
        self._db = connect(path, 0.0)
        self._log = path.with_name(f"{path.name}-wal").open("rb")
        self._one_at_a_time = threading.Lock()
        self._securing = threading.Lock()
        self._wanted = threading.Semaphore(0)
        self._held = self._ending = self._due = False
        self._error: StoreFailed | None = None
        self._written = self._asked = 0
        self._known = (0, 0, 0)
        """How many pages were written when the log was last looked at, how many it then had, and how many of these were
        in the file.
        """
        self._committed = committed
        self.secured = committed
        """The number of the last commit that is on disk for sure."""
        self.waiting = False
        """Whether one met a full disk and is still to be made up for."""
        self._thread = threading.Thread(target=self._run, name="queue-checkpoints", daemon=True)
        self._thread.start()

    def written(self, pages: int) -> None:
        """Hear that about so many pages were added to the log. Raises StoreFailed where a checkpoint has failed."""
        self.expect_sound()
        self._written += pages
        if self._held:
            return
        written, log_pages, done = self._known
        log_pages += self._written - written
        if log_pages >= MOST_LOG_PAGES or (log_pages >= LONG_LOG_PAGES and log_pages - done <= FEW_PAGES):
            self.make()
        elif self._written - self._asked >= LOG_PAGES:
            self._asked = self._written
            self._due = True
            self._wanted.release()

    def expect_sound(self) -> None:
        """Raise StoreFailed where a checkpoint or a sync has failed."""
        if self._error is not None:
            raise self._error

    def committed(self, number: int) -> None:
        """Hear the number of a commit."""
        self._committed = number

    def secure_soon(self) -> None:
        """Let the thread see to it that what was committed is on disk."""
        self._wanted.release()

    def secure(self) -> None:
        """Have on disk what was committed. Raises StoreFailed, from then on always: Linux tells an error once."""
        with self._securing:
            self.expect_sound()
            number = self._committed
            if number > self.secured:
                try:
                    os.fdatasync(self._log.fileno())
                except OSError as error:
                    self._error = StoreFailed(f"The log of the queue's store cannot be written: {error}.")
                    raise self._error from error
                self.secured = number

    def make(self) -> None:
        """Bring the log into the file now, so that it is written from its beginning again. Raises StoreFailed."""
        with self._one_at_a_time:
            if not self._held:
                self._checkpoint(self._writer, "RESTART")
                self._known = (self._written, 0, 0)
        self._asked = self._written

    def hold(self) -> None:
        """Bring the log into the file, and let that stay as it is until `go_on`. Raises StoreFull, StoreFailed."""
        with self._one_at_a_time, translated():
            busy, *_ = self._writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            if busy:
                raise StoreFailed("The log of the queue's store is in use by somebody else.")
            self._held = True
            self._known = (self._written, 0, 0)

    def go_on(self) -> None:
        """Let the file change again."""
        self._held = False

    def _run(self) -> None:
        while True:
            wanted = self._wanted.acquire(timeout=AGAIN_S)
            if self._ending:
                return
            if not (wanted or self.waiting):
                continue
            with self._one_at_a_time:
                try:
                    self.secure()
                    if not self._held and (self.waiting or self._due):
                        self._due = False
                        self._checkpoint(self._db, "PASSIVE")
                except StoreFailed as error:
                    self._error = error
                    return

    def _checkpoint(self, db: sqlite3.Connection, mode: str) -> None:
        written = self._written
        try:
            with translated():
                _busy, log_pages, done = db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            self._known = (written, log_pages, done)
            self.waiting = self.waiting and done < log_pages
        except StoreFull:
            if not self.waiting:
                log.warning("the log of the queue's store waits for room on the disk")
            self._known = (written, 0, 0)
            self.waiting = True

    def close(self) -> None:
        """End the thread, after a checkpoint under way."""
        self._ending = True
        self._wanted.release()
        self._thread.join()
        self._db.close()
        self._log.close()

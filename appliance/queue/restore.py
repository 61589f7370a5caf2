"""A backup that takes the place of the store at the broker's next start."""

import contextlib
import logging
import sqlite3
from pathlib import Path

from appliance.durable import sync
from appliance.queue.errors import CopyFailed, StoreFailed, StoreFull
from appliance.queue.logged_store import open_store
from appliance.queue.redo import SUFFIXES
from appliance.queue.sqlite_file import connect, translated

log = logging.getLogger(__name__)

STORE = "queue.sqlite"
RESTORE = "restore.sqlite"
"""Put beside the store, it is what the next start takes up."""
REFUSED = "refused.sqlite"
REPLACED = "replaced.sqlite"
BESIDE = ("-wal", *SUFFIXES)
"""The logs of a store are named like it, with this after it."""

# No token that was handed out since the backup was made may fit what is handed out from now on.
ESTRANGE = f"""BEGIN IMMEDIATE;
UPDATE work SET fence = fence + {2**20} WHERE state = 0 OR state = 3;
UPDATE lease SET fence = fence + {2**20};
UPDATE clock SET turn = turn + {2**32},
 next_seq = max(next_seq, (SELECT coalesce(max(seq), 0) FROM work) + 1) + {2**32};
COMMIT;"""


def take_up(directory: Path) -> Path:
    """Return the file of the store, once a backup that was left beside it has taken its place.

    The store that was there is kept as REPLACED. A backup that is not sound becomes REFUSED and changes nothing. Where
    this is cut off, the next start goes on with it, or raises StoreFailed where that cannot be.
    """
    store, candidate = directory / STORE, directory / RESTORE
    if not candidate.exists():
        return store
    problems = _adopted(candidate)
    if problems:
        if not store.exists() and (directory / REPLACED).exists():
            hint = f"Is there room on the disk? Otherwise move {RESTORE}* away and {REPLACED}* back to {STORE}*."
            text = f"The backup that is taking the queue's place cannot be read: {' '.join(problems)}"
            raise StoreFailed(text, hint=hint)
        log.error("the backup is not taken up: %s", " ".join(problems))
        _move_aside(directory, RESTORE, REFUSED)
        return store
    _move_aside(directory, STORE, REPLACED)
    sync(directory)
    for suffix in BESIDE:
        (directory / f"{RESTORE}{suffix}").unlink(missing_ok=True)  # what was in them is in the file
    candidate.replace(store)
    sync(directory)
    log.warning("a backup has taken the place of the store, which is kept as %s", REPLACED)
    return store


def _move_aside(directory: Path, store: str, place: str) -> None:
    """Move a store, if it is there still, and its logs."""
    if (directory / store).exists():
        for suffix in BESIDE:
            (directory / f"{place}{suffix}").unlink(missing_ok=True)
        (directory / store).replace(directory / place)
    for suffix in BESIDE:
        if (directory / f"{store}{suffix}").exists():
            (directory / f"{store}{suffix}").replace(directory / f"{place}{suffix}")


def _adopted(candidate: Path) -> list[str]:
    """Make the backup a store that may go on from here, and return what keeps it from being one."""
    try:
        problems = _problems(candidate)
        if not problems:
            _estrange(candidate)
    except (StoreFailed, StoreFull, CopyFailed) as error:
        return [error.message]
    return problems


def _problems(candidate: Path) -> list[str]:
    """Bring the backup to this firmware's schema, and return what is wrong with it."""
    with translated(), contextlib.closing(connect(candidate, 0.0)) as db:
        if db.execute("PRAGMA user_version").fetchone() == (0,):
            return ["It is no store of the queue."]
    with contextlib.closing(open_store(candidate)) as store, contextlib.closing(store.still()) as still:
        return still.check()


def _estrange(candidate: Path) -> None:
    with translated(), contextlib.closing(sqlite3.connect(candidate, isolation_level=None)) as db:
        db.executescript(ESTRANGE)

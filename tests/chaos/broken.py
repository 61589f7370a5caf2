"""The broker's process with a store that breaks its word: `python3 -m tests.chaos.broken NAME`.

The product has no switch for any of this; each is what a mistake in the store would do, and the checker must find it.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from appliance import notify
from appliance.queue import service
from appliance.queue.logged_store import LoggedStore, open_store
from appliance.queue.redo import RedoLog
from appliance.queue.sqlite_store import SqliteStore
from appliance.queue.store import Given, NewItem, Store, TakenItem


class EarlyAcknowledgement(LoggedStore):
    """Says that it has committed, and does so when it is closed: what is answered until then is lost in a kill."""

    def commit(self) -> None:
        """See Store."""

    def close(self) -> None:
        """See Store."""
        super().commit()
        super().close()


def without_sync(path: Path) -> Store:
    """Return a store that commits without waiting for the disk: no kill harms it, a power cut does."""
    setattr(os, "fdatasync", lambda _descriptor: None)  # noqa: B010  # a plain assignment would need an ignore
    tables = SqliteStore(path, logged=True)
    for db in (tables._db, tables._checkpoints._db):
        db.execute("PRAGMA synchronous = OFF")
    return LoggedStore(tables, RedoLog(path))


class ForgetfulDedupe(LoggedStore):
    """Starts without the ids of what has ended."""

    def __init__(self, tables: SqliteStore, redo: RedoLog) -> None:
        super().__init__(tables, redo)
        tables._db.execute("DELETE FROM work WHERE state IN (2, 4, 5)")
        tables._checkpoints.make()  # the turns that come rely on it


class OneFence(SqliteStore):
    """Gives every lease of an item the same token."""

    def take(self, address: str, holder: str, limit: int, max_bytes: int, wall: float) -> tuple[list[TakenItem], bool]:
        """See Store."""
        taken, more = super().take(address, holder, limit, max_bytes, wall)
        if taken:
            self._begin().executemany("UPDATE lease SET fence = 1 WHERE seq = ?", [(item.seq,) for item in taken])
        return [msgspec.structs.replace(item, fence=1) for item in taken], more


class Careless(LoggedStore):
    """Takes no notice of keys and times, and does not count attempts."""

    def put(self, items: Sequence[NewItem]) -> list[bool]:
        """See Store."""
        return super().put([msgspec.structs.replace(item, key=None, due=None, not_before=None) for item in items])

    def give_back(self, given: Iterable[Given], wall: float) -> None:
        """See Store."""
        super().give_back([msgspec.structs.replace(each, attempt=0, due=None) for each in given], wall)


def logged(tables: type[SqliteStore], path: Path, store: type[LoggedStore] = LoggedStore) -> Store:
    """Return the store with one of its halves replaced."""
    return store(tables(path, logged=True), RedoLog(path))


STORES: dict[str, Callable[[Path], Store]] = {
    "sound": open_store,
    "early-acknowledgement": partial(logged, SqliteStore, store=EarlyAcknowledgement),
    "no-sync": without_sync,
    "forgetful-dedupe": partial(logged, SqliteStore, store=ForgetfulDedupe),
    "one-fence": partial(logged, OneFence),
    "careless": partial(logged, SqliteStore, store=Careless),
}

if __name__ == "__main__":

    def opened(path: Path, *, lay_out: bool) -> Store:
        """Return the store that is meant; its logs are laid out nowhere, so that a full disk stops it early."""
        return STORES[sys.argv[1]](path)

    setattr(service, "open_store", opened)  # noqa: B010  # a plain assignment would need an ignore
    sys.exit(notify.run(service.main))

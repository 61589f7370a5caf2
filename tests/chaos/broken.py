"""The broker's process with a store that breaks its word: `python3 -m tests.chaos.broken NAME`.

The product has no switch for any of this; each is what a mistake in the store would do, and the checker must find it.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from appliance import notify
from appliance.queue import service
from appliance.queue.sqlite_store import SqliteStore
from appliance.queue.store import Given, NewItem, Snapshot, TakenItem


class EarlyAcknowledgement(SqliteStore):
    """Says that it has committed, and does so when it is closed: what is answered until then is lost in a kill."""

    def commit(self) -> None:
        """See Store."""

    def close(self) -> None:
        """See Store."""
        super().commit()
        super().close()


class NoSync(SqliteStore):
    """Commits without waiting for the disk: no kill harms it, a power cut does."""

    def __init__(self, path: Path, wait_s: float = 5.0, laid_out: int = 0) -> None:
        super().__init__(path, wait_s, laid_out)
        for db in (self._db, self._checkpoints._db):
            db.execute("PRAGMA synchronous = OFF")


class ForgetfulDedupe(SqliteStore):
    """Starts without the ids of what has ended."""

    def load(self) -> Snapshot:
        """See Store."""
        self._db.execute("DELETE FROM work WHERE state IN (2, 4, 5)")
        return super().load()


class OneFence(SqliteStore):
    """Gives every lease of an item the same token."""

    def take(self, address: str, holder: str, limit: int, max_bytes: int, wall: float) -> tuple[list[TakenItem], bool]:
        """See Store."""
        taken, more = super().take(address, holder, limit, max_bytes, wall)
        if taken:
            self._begin().executemany("UPDATE lease SET fence = 1 WHERE seq = ?", [(item.seq,) for item in taken])
        return [msgspec.structs.replace(item, fence=1) for item in taken], more


class Careless(SqliteStore):
    """Takes no notice of keys and times, and does not count attempts."""

    def put(self, items: Sequence[NewItem]) -> list[bool]:
        """See Store."""
        return super().put([msgspec.structs.replace(item, key=None, due=None, not_before=None) for item in items])

    def give_back(self, given: Iterable[Given], wall: float) -> None:
        """See Store."""
        super().give_back([msgspec.structs.replace(each, attempt=0, due=None) for each in given], wall)


STORES: dict[str, type[SqliteStore]] = {
    "sound": SqliteStore,
    "early-acknowledgement": EarlyAcknowledgement,
    "no-sync": NoSync,
    "forgetful-dedupe": ForgetfulDedupe,
    "one-fence": OneFence,
    "careless": Careless,
}

if __name__ == "__main__":
    setattr(service, "SqliteStore", STORES[sys.argv[1]])  # noqa: B010  # a plain assignment would need an ignore
    sys.exit(notify.run(service.main))

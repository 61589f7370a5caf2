"""A store on a disk that is full when the test says so."""

import sqlite3
from pathlib import Path

from appliance.queue.errors import NO_ROOM, StoreFull
from appliance.queue.logged_store import LoggedStore
from appliance.queue.redo import RedoLog
from appliance.queue.sqlite_store import SqliteStore


class NarrowTables(SqliteStore):
    """`room` is how many more changes fit; None for as many as there are. `commits` is whether a commit fits."""

    room: int | None = None
    commits = True

    def take_room(self) -> None:
        """Make one change, if it fits."""
        if self.room is not None:
            if self.room == 0:
                raise StoreFull(NO_ROOM)
            self.room -= 1

    def _begin(self) -> sqlite3.Connection:
        self.take_room()
        return super()._begin()

    def _complete(self) -> sqlite3.Connection:
        room, self.room = self.room, None  # to read takes none
        try:
            return super()._complete()
        finally:
            self.room = room

    def commit_turn(self, turn: int) -> None:
        if not self.commits:
            raise StoreFull(NO_ROOM)
        super().commit_turn(turn)


class NarrowStore(LoggedStore):
    """`room` is how many more changes fit, a commit counting as one; what is on record is done again in any case."""

    waits = False

    def __init__(self, path: Path) -> None:
        self.tables = NarrowTables(path, logged=True)
        self.tables._db.execute("PRAGMA synchronous = OFF")
        super().__init__(self.tables, RedoLog(path))

    @property
    def waits_for_room(self) -> bool:
        return self.waits

    @property
    def room(self) -> int | None:
        return self.tables.room

    @room.setter
    def room(self, room: int | None) -> None:
        self.tables.room = room

    def commit(self) -> None:
        if self.changed:
            self.tables.take_room()
        super().commit()

    def _begin_again(self) -> None:
        room, self.room = self.room, None
        super()._begin_again()
        self.room = room

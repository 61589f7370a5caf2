"""A store on a disk that is full when the test says so."""

import sqlite3

from appliance.queue.errors import StoreFull
from appliance.queue.sqlite_store import SqliteStore


class NarrowStore(SqliteStore):
    """`room` is how many more changes fit, a commit counting as one; None for as many as there are."""

    room: int | None = None
    waits = False

    @property
    def waits_for_room(self) -> bool:
        return self.waits

    def _take_room(self) -> None:
        if self.room is not None:
            if self.room == 0:
                raise StoreFull("The disk has no room for the queue.")
            self.room -= 1

    def _begin(self) -> sqlite3.Connection:
        self._take_room()
        return super()._begin()

    def commit(self) -> None:
        if self.changed:
            self._take_room()
        super().commit()

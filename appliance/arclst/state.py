"""The cluster's state in SQLite. Every change is a numbered revision and is on disk when the call returns.

Blocking, and made for one thread: the service gives it one of its own.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from appliance.arclst.schema import migrate
from appliance.contracts.flow import Flow, Flows
from appliance.contracts.member import Member, Members
from appliance.contracts.revision import Revision
from appliance.errors import NotFound, Unavailable


class NotStored(Unavailable):
    """The database did not take the change; nothing was changed."""

    code = "state-not-stored"
    hint = "Check the free space of the state partition, then try again."


class State:
    """The open database; `clock` gives Unix time."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("PRAGMA foreign_keys = ON")
        migrate(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    @property
    def revision(self) -> int:
        """The number of the newest change, 0 before the first."""
        (number,) = self._database.execute("SELECT coalesce(max(number), 0) FROM revision").fetchone()
        return int(number)

    def revisions(self, limit: int = 100) -> tuple[Revision, ...]:
        """Return the newest changes, newest first."""
        rows = self._database.execute("SELECT * FROM revision ORDER BY number DESC LIMIT ?", (limit,))
        return tuple(Revision(number=number, at=at, who=who, what=what) for number, at, who, what in rows)

    def members(self) -> Members:
        """Return everyone who joined."""
        rows = self._database.execute("SELECT name, component, v4, v6, port FROM member ORDER BY name")
        members = tuple(Member(name=name, component=kind, v4=v4, v6=v6, port=port) for name, kind, v4, v6, port in rows)
        return Members(revision=self.revision, members=members)

    def join(self, member: Member) -> int:
        """Take in a member or its new address; return the revision. Joining again unchanged changes nothing."""
        if member in self.members().members:
            return self.revision
        with self._change(member.name, f"{member.name} joined at {member.v4} and {member.v6}, port {member.port}"):
            self._database.execute(
                "INSERT INTO member VALUES (:name, :component, :v4, :v6, :port) ON CONFLICT DO UPDATE SET "
                "component = :component, v4 = :v4, v6 = :v6, port = :port",
                msgspec.to_builtins(member),
            )
        return self.revision

    def flows(self) -> Flows:
        """Return every flow."""
        rows = self._database.execute("SELECT document FROM flow ORDER BY name")
        flows = tuple(msgspec.json.decode(document, type=Flow) for (document,) in rows)
        return Flows(revision=self.revision, flows=flows)

    def put_flow(self, flow: Flow, who: str) -> int:
        """Add a flow or replace the one of its name; return the revision. An equal flow changes nothing."""
        before = {known.name: known for known in self.flows().flows}.get(flow.name)
        if before == flow:
            return self.revision
        with self._change(who, f"flow {flow.name} was {'added' if before is None else 'changed'}"):
            self._database.execute(
                "INSERT INTO flow VALUES (?1, ?2) ON CONFLICT DO UPDATE SET document = ?2",
                (flow.name, msgspec.json.encode(flow)),
            )
        return self.revision

    def delete_flow(self, name: str, who: str) -> int:
        """Delete a flow; return the revision. Raises NotFound."""
        with self._change(who, f"flow {name} was deleted"):
            if not self._database.execute("DELETE FROM flow WHERE name = ?", (name,)).rowcount:
                raise NotFound(f"There is no flow named {name}.", hint="The portal shows the flows there are.")
        return self.revision

    def password(self, user: str) -> str | None:
        """Return the user's password hash, None where there is no such user."""
        row = self._database.execute("SELECT password FROM user WHERE name = ?", (user,)).fetchone()
        return None if row is None else str(row[0])

    def set_password(self, user: str, password: str, who: str) -> int:
        """Set a user's password hash and end all of the user's sessions; return the revision."""
        with self._change(who, f"the password of {user} was set"):
            self._database.execute(
                "INSERT INTO user VALUES (?1, ?2) ON CONFLICT DO UPDATE SET password = ?2", (user, password)
            )
            self._database.execute("DELETE FROM session WHERE user = ?", (user,))
        return self.revision

    def open_session(self, token_hash: bytes, user: str) -> None:
        """Keep a session that starts now."""
        now = self._clock()
        with self._transaction():
            self._database.execute("INSERT INTO session VALUES (?, ?, ?, ?)", (token_hash, user, now, now))

    def session(self, token_hash: bytes) -> tuple[str, float, float] | None:
        """Return a session's user and when it was opened and last seen (Unix time), None where there is none."""
        query = "SELECT user, opened_at, seen_at FROM session WHERE token_hash = ?"
        row: tuple[str, float, float] | None = self._database.execute(query, (token_hash,)).fetchone()
        return row

    def touch_session(self, token_hash: bytes) -> None:
        """Note that a session was used now."""
        with self._transaction():
            self._database.execute("UPDATE session SET seen_at = ? WHERE token_hash = ?", (self._clock(), token_hash))

    def close_session(self, token_hash: bytes) -> None:
        """Forget a session; one that is not there is no error."""
        with self._transaction():
            self._database.execute("DELETE FROM session WHERE token_hash = ?", (token_hash,))

    def forget_sessions(self, opened_before: float, seen_before: float) -> None:
        """Forget the sessions that were opened or last seen before these times (Unix time)."""
        with self._transaction():
            self._database.execute(
                "DELETE FROM session WHERE opened_at < ? OR seen_at < ?", (opened_before, seen_before)
            )

    @contextmanager
    def _change(self, who: str, what: str) -> Iterator[None]:
        """A transaction that is the next revision."""
        with self._transaction():
            self._database.execute("INSERT INTO revision (at, who, what) VALUES (?, ?, ?)", (self._clock(), who, what))
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise NotStored(f"The cluster's state cannot be written: {error}.") from error

"""The database's schema, as an ordered list of migrations; `PRAGMA user_version` says how many were applied."""

import sqlite3

from appliance.errors import ApplianceError

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE revision (
        number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL
    ) STRICT;
    CREATE TABLE member (
        name TEXT PRIMARY KEY, component TEXT NOT NULL, v4 TEXT NOT NULL, v6 TEXT NOT NULL, port INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE flow (name TEXT PRIMARY KEY, document BLOB NOT NULL) STRICT;
    CREATE TABLE user (name TEXT PRIMARY KEY, password TEXT NOT NULL) STRICT;
    CREATE TABLE session (
        token_hash BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES user (name) ON DELETE CASCADE,
        opened_at REAL NOT NULL, seen_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
)
"""Append only: a migration that was ever released is never changed."""


class UnknownSchema(ApplianceError):
    """The database was written by a newer firmware."""

    code = "unknown-schema"
    hint = "Go back to the firmware that wrote it, or restore a backup."


def migrate(database: sqlite3.Connection, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring `database` to the newest schema, each migration in a transaction of its own; raise UnknownSchema."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise UnknownSchema(f"The cluster's state has schema {version}, this firmware knows {len(migrations)}.")
    for number in range(version, len(migrations)):
        # executescript() commits what is open, so the transaction has to be part of the script.
        database.executescript(f"BEGIN IMMEDIATE; {migrations[number]}; PRAGMA user_version = {number + 1}; COMMIT;")

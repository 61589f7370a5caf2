"""The tables of the SQLite store, as a list of steps; a database at version n has had the first n of them."""

VERSION_1 = """
CREATE TABLE clock (only INTEGER PRIMARY KEY CHECK (only = 1), at REAL NOT NULL, next_seq INTEGER NOT NULL);
INSERT INTO clock VALUES (1, 0.0, 1);

CREATE TABLE work (
    seq INTEGER PRIMARY KEY,
    origin TEXT NOT NULL,
    id TEXT NOT NULL,
    address TEXT NOT NULL,
    state INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    holder TEXT NOT NULL,
    key TEXT,
    due REAL,
    not_before REAL,
    expires_at REAL,
    published_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    size INTEGER NOT NULL,
    reason TEXT NOT NULL,
    UNIQUE (origin, id)
);
-- Partial, so that an item is only in the indexes of the state it is in.
CREATE INDEX work_ready ON work (address, seq) WHERE state = 0 AND due IS NULL AND not_before IS NULL;
CREATE INDEX work_due ON work (due) WHERE state = 0 AND due IS NOT NULL;
CREATE INDEX work_not_before ON work (not_before) WHERE state = 0 AND not_before IS NOT NULL;
CREATE INDEX work_expires ON work (expires_at) WHERE state = 0 AND expires_at IS NOT NULL;
CREATE INDEX work_key ON work (address, key, seq) WHERE key IS NOT NULL AND state <= 1;
CREATE INDEX work_leased ON work (seq) WHERE state = 1;
CREATE INDEX work_settled ON work (changed_at) WHERE state IN (2, 4);

-- Apart from the items, so that a change of state touches small rows only.
CREATE TABLE body (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);

CREATE TABLE history (
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    attempt INTEGER NOT NULL,
    holder TEXT NOT NULL,
    what TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX history_of ON history (seq);

CREATE TABLE totals (address TEXT PRIMARY KEY, done INTEGER NOT NULL, dead INTEGER NOT NULL, expired INTEGER NOT NULL)
WITHOUT ROWID;
"""

VERSION_2 = """
ALTER TABLE work ADD COLUMN waybill BLOB;
CREATE INDEX work_dead ON work (seq) WHERE state = 3;
DROP INDEX work_settled;
-- Not IN, which SQLite evaluates with a table of its own at each change of a row: 4 µs of its 20.
CREATE INDEX work_settled ON work (changed_at) WHERE state > 1 AND state <> 3;

-- Kept in the transaction of each change, so that a start does not count a million items.
CREATE TABLE counts (
    address TEXT PRIMARY KEY,
    ready INTEGER NOT NULL,
    leased INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    done_total INTEGER NOT NULL,
    dead_total INTEGER NOT NULL,
    expired_total INTEGER NOT NULL,
    purged_total INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO counts SELECT address, 0, 0, 0, 0, done, dead, expired, 0 FROM totals;
INSERT INTO counts SELECT address, sum(state = 0), sum(state = 1), sum(state = 3),
    coalesce(sum(size) FILTER (WHERE state IN (0, 1, 3)), 0), 0, 0, 0, 0 FROM work WHERE true GROUP BY address
    ON CONFLICT (address) DO UPDATE SET ready = excluded.ready, leased = excluded.leased, dead = excluded.dead,
    bytes = excluded.bytes;
DROP TABLE totals;
"""

STEPS = (VERSION_1, VERSION_2)

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
ALTER TABLE clock ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;
UPDATE clock SET settled = (SELECT count(*) FROM work WHERE state IN (2, 4));

-- A lease is a small row of its own, and what can be leased another, so that an item is not rewritten at each step.
-- An item under lease has state 0; its attempt, fence and holder are those of the lease.
CREATE TABLE lease (
    seq INTEGER PRIMARY KEY,
    fence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    holder TEXT NOT NULL,
    at REAL NOT NULL,
    key TEXT
);
CREATE INDEX lease_key ON lease (key) WHERE key IS NOT NULL;
INSERT INTO lease SELECT seq, fence, attempt, holder, changed_at, key FROM work WHERE state = 1;
UPDATE work SET state = 0 WHERE state = 1;
UPDATE work SET due = NULL, not_before = NULL WHERE state > 0;

DROP INDEX work_ready;
DROP INDEX work_leased;
DROP INDEX work_due;
DROP INDEX work_not_before;
DROP INDEX work_key;
DROP INDEX work_settled;
CREATE INDEX work_due ON work (due) WHERE due IS NOT NULL;
CREATE INDEX work_not_before ON work (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX work_key ON work (address, key, seq) WHERE key IS NOT NULL AND state = 0;
CREATE INDEX work_dead ON work (seq) WHERE state = 3;
-- Not IN, which SQLite evaluates with a table of its own at each change of a row: 4 µs of its 20.
CREATE INDEX work_settled ON work (changed_at) WHERE state > 1 AND state <> 3;

-- What has begun, is not leased, and is the eldest of its key.
CREATE TABLE ready (address TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (address, seq)) WITHOUT ROWID;
INSERT INTO ready SELECT address, seq FROM work WHERE state = 0 AND due IS NULL AND not_before IS NULL
    AND seq NOT IN (SELECT seq FROM lease) AND (key IS NULL OR NOT EXISTS (SELECT 1 FROM work AS elder
    WHERE elder.address = work.address AND elder.key = work.key AND elder.state = 0 AND elder.seq < work.seq));

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
INSERT INTO counts SELECT address, sum(state = 0 AND lease.seq IS NULL), count(lease.seq), sum(state = 3),
    coalesce(sum(size) FILTER (WHERE state IN (0, 3)), 0), 0, 0, 0, 0
    FROM work LEFT JOIN lease USING (seq) WHERE true GROUP BY address
    ON CONFLICT (address) DO UPDATE SET ready = excluded.ready, leased = excluded.leased, dead = excluded.dead,
    bytes = excluded.bytes;
DROP TABLE totals;
"""

VERSION_3 = """
-- How many ended items are remembered follows from the totals, so that a commit that ends some need not touch this row.
ALTER TABLE clock ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
UPDATE clock SET forgotten =
    (SELECT coalesce(sum(done_total + expired_total + purged_total), 0) FROM counts) - settled;
ALTER TABLE clock DROP COLUMN settled;
"""

VERSION_4 = """
-- The last turn of the redo log that is in these tables.
ALTER TABLE clock ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
"""

STEPS = (VERSION_1, VERSION_2, VERSION_3, VERSION_4)

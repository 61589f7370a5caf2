"""SQLite alone: the broker's own tables and statements, WAL and `synchronous=FULL`, without a broker around them."""

import sqlite3
import time
from collections.abc import Callable

from appliance.queue.schema import STEPS
from appliance.queue.sqlite_file import PAGE
from appliance.queue.sqlite_store import DROP_BODIES, END_LEASES, FINISH, INSERT_BODY, LEASE, READY, UNREADY
from tests.bench.peers.order import Order, Report

CHECKPOINT_PAGES = 4000
INSERT = """INSERT INTO work (seq, origin, id, address, state, attempt, max_attempts, fence, holder, published_at,
 changed_at, size, reason) VALUES (?,?,?,?,0,0,8,0,'',?,?,?,'')"""


def opened(path: str) -> sqlite3.Connection:
    """Return a fresh database like the broker's."""
    database = sqlite3.connect(path, isolation_level=None)
    for pragma in (
        f"page_size = {PAGE}", "locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}", "secure_delete = OFF",
    ):  # fmt: skip
        database.execute(f"PRAGMA {pragma}")
    for step in STEPS:
        database.executescript(step)
    return database


def insert(database: sqlite3.Connection, order: Order, first: int, body: bytes) -> None:
    """Insert one batch of `window` messages and have it on the disk."""
    now = time.time()
    seqs = range(first, first + order.window)
    database.execute("BEGIN IMMEDIATE")
    rows = [(seq, "bench", f"{seq:032x}", order.queue, now, now, order.size) for seq in seqs]
    database.executemany(INSERT, rows)
    database.executemany(INSERT_BODY, [(seq, body) for seq in seqs])
    database.execute(READY, (first, first + order.window - 1))
    database.execute("COMMIT")


def work_off(database: sqlite3.Connection, order: Order, first: int) -> None:
    """Lease one batch, in one transaction, and end it in another."""
    now = time.time()
    last = first + order.window - 1
    database.execute("BEGIN IMMEDIATE")
    database.execute(UNREADY, (order.queue, first, last))
    database.execute(LEASE, ("bench", now, first, last))
    database.execute("COMMIT")
    database.execute("BEGIN IMMEDIATE")
    database.execute(FINISH, (now, first, last))
    for drop in (DROP_BODIES, END_LEASES):
        database.execute(drop, (first, last))
    database.execute("COMMIT")


def run(order: Order, *, with_consume: bool) -> Report:
    """Insert batch after batch until the time is over; `with_consume` leases and ends each as well."""
    database = opened(order.database)
    body = bytes(order.size)
    count = 0
    began = time.monotonic()
    while time.monotonic() < began + order.seconds:
        insert(database, order, count + 1, body)
        if with_consume:
            work_off(database, order, count + 1)
        count += order.window
    return Report(count=count, began=began, ended=time.monotonic())


LOADS: dict[str, Callable[[Order], Report]] = {
    "publish": lambda order: run(order, with_consume=False), "both": lambda order: run(order, with_consume=True),
}  # fmt: skip

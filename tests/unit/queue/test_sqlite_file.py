"""The database file: how much work a question is, how large the log becomes, and what an error comes to."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.queue import sqlite_file, sqlite_reading, sqlite_store
from appliance.queue.errors import StoreDamaged, StoreFailed
from appliance.queue.sqlite_store import SqliteStore
from appliance.queue.store import Counts, NewItem, State

REPOSITORY = Path(__file__).resolve().parents[3]
WALL = 1000.0
MANY = 20_000
FEW_STEPS = 2000
"""Instructions of SQLite's machine: a look at a few rows, not at MANY."""

QUESTIONS = {
    name: query
    for module in (sqlite_reading, sqlite_store)
    for name, query in vars(module).items()
    if isinstance(query, str) and query.startswith(("SELECT", "UPDATE", "DELETE"))
}
LONG = {"BROWSE", "RECENT", "HELD", "LINES"}
"""These look at many rows: for a person, or all the leases there are."""


def item(seq: int, body: bytes = b"x", key: str | None = None) -> NewItem:
    return NewItem(seq, "alice", str(seq), "a", body, 3, WALL, key=key)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store that does not wait for the disk."""
    store = SqliteStore(tmp_path / "q")
    store._db.execute("PRAGMA synchronous = OFF")
    yield store
    store.close()


@pytest.mark.parametrize("name", sorted(QUESTIONS.keys() - LONG))
def test_no_question_of_the_broker_goes_through_a_table_or_sorts(store: SqliteStore, name: str) -> None:
    query = QUESTIONS[name]
    plan = store._db.execute(f"EXPLAIN QUERY PLAN {query}", [1] * _holes(query)).fetchall()
    steps = [step for *_, step in plan]
    assert not [step for step in steps if "TEMP B-TREE" in step or (step.startswith("SCAN") and "INDEX" not in step)]


def _holes(query: str) -> int:
    numbered = [int(part[0]) for part in query.split("?")[1:] if part[:1].isdigit()]
    return max(numbered) if numbered else query.count("?")


@pytest.mark.parametrize("key", [None, "k"])
def test_a_start_and_a_turn_are_little_work_however_many_wait(store: SqliteStore, key: str | None) -> None:
    store.put([item(seq, key=key) for seq in range(1, MANY + 1)])
    store.progress(1.0, {"a": Counts(ready=MANY, bytes=MANY)})
    store.commit()

    def turn() -> None:
        taken, _ = store.take("a", "bob", 1, 2**20, WALL)
        store.finish([each.seq for each in taken], WALL)

    for what in (store.load, store.next_times, store.remembered_since, turn, turn):
        assert _steps(store, what) < FEW_STEPS
    store.take("a", "bob", 1, 2**20, WALL)
    store.bury(3, 1, WALL, "broken")
    assert _steps(store, lambda: store.requeue([3], WALL)) < FEW_STEPS


def _steps(store: SqliteStore, do: Callable[[], object]) -> int:
    """Count what it takes, in hundreds."""
    hundreds: list[None] = []
    store._db.set_progress_handler(lambda: hundreds.append(None), 100)
    do()
    store._db.set_progress_handler(None, 0)
    return len(hundreds) * 100


def test_the_log_stays_small_under_load_that_never_pauses(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "LOG_PAGES", 50)
    monkeypatch.setattr(sqlite_file, "MOST_LOG_PAGES", 400)
    largest = 0
    for first in range(1, 8001, 100):
        store.put([item(seq, bytes(4000)) for seq in range(first, first + 100)])
        store.commit()
        largest = max(largest, (tmp_path / "q-wal").stat().st_size)
    assert (tmp_path / "q").stat().st_size + largest > 8000 * 4000
    assert largest < 2 * 400 * sqlite_file.PAGE


def test_a_log_that_is_laid_out_is_written_over_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    log, length = tmp_path / "q-wal", 2**20
    store = SqliteStore(tmp_path / "q", laid_out=length)
    store.put([item(1)])
    store.commit()
    assert log.stat().st_size == length
    (tmp_path / "again").mkdir()
    for name in ("q", "q-wal"):  # as a kill would leave them
        (tmp_path / "again" / name).write_bytes((tmp_path / name).read_bytes())
    store.close()
    store = SqliteStore(tmp_path / "again/q", laid_out=2 * length)
    store.put([item(2)])
    store.commit()
    assert [brief.seq for brief in store.browse("*", State.READY, 0, 9)] == [1, 2]
    assert (tmp_path / "again/q-wal").stat().st_size == 2 * length
    store.close()


def test_a_log_is_not_laid_out_where_it_would_take_much_of_the_disk(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    store = SqliteStore(tmp_path / "q", laid_out=disk.f_bavail * disk.f_frsize // 10)
    assert (tmp_path / "q-wal").stat().st_size < 2**20
    store.close()


FAILING_CHECKPOINT = """
import resource, sys, time
from appliance.queue.errors import StoreFailed
from tests.unit.queue.test_sqlite_file import Path, SqliteStore, item
store = SqliteStore(Path("q"))
seqs = iter(range(1, 10**9))
def put(number, size):
    store.put([item(next(seqs), bytes(size)) for _ in range(number)])
    store.commit()
while Path("q").stat().st_size < 12 * 2**20:
    put(100, 8000)
    store._checkpoints.make()
resource.setrlimit(resource.RLIMIT_FSIZE, (13 * 2**20, 13 * 2**20))
put(1050, 8000)  # now a checkpoint is due, and the file cannot grow by that
end = time.monotonic() + 60
try:
    while time.monotonic() < end:
        put(1, 1)
        time.sleep(0.01)
except StoreFailed as error:
    print(error.code, error.message)
store.close()
"""


def test_a_checkpoint_that_fails_ends_the_store(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FAILING_CHECKPOINT], cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "store-failed The queue's store failed: disk I/O error" in ran.stdout
    store = SqliteStore(tmp_path / "q")
    assert [brief.seq for brief in store.browse("*", State.READY, 0, 10**6)][-1] > 1050
    store.close()


@pytest.mark.parametrize("harm", ["header", "page"])
def test_a_damaged_file_is_told_with_what_to_do(tmp_path: Path, harm: str) -> None:
    store = SqliteStore(tmp_path / "q")
    store.put([item(seq) for seq in range(1, 500)])
    store.commit()
    root = store._db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'ready'").fetchone()[0]
    store.close()
    with (tmp_path / "q").open("r+b") as file:
        file.seek(0 if harm == "header" else (root - 1) * sqlite_file.PAGE)
        file.write(b"\xa5" * 4096)
    with pytest.raises(StoreDamaged) as caught, contextlib.closing(SqliteStore(tmp_path / "q")) as store:
        store.take("a", "bob", 9, 2**20, WALL)
    assert "backup" in caught.value.hint


def test_a_file_of_a_newer_firmware_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "q") as db:
        db.execute("CREATE TABLE theirs (x)")
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreFailed, match="schema 99"):
        SqliteStore(tmp_path / "q")
    with sqlite3.connect(tmp_path / "q") as db:
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    db.close()

"""The SQLite store, and the broker on a store that fails."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.queue import schema, wire
from appliance.queue.errors import CopyFailed, StoreFailed, StoreFull
from appliance.queue.inspection import STATE_NAMES
from appliance.queue.ledger import Ledger
from appliance.queue.sqlite_store import SqliteStore
from appliance.queue.store import Counts, NewItem, State
from tests.unit.queue.desk import Desk

REPOSITORY = Path(__file__).resolve().parents[3]


def item(seq: int, name: str = "", body: bytes = b"x") -> NewItem:
    return NewItem(seq, "alice", name or str(seq), "a", body, 3, 1000.0)


def test_nothing_counts_before_the_commit(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    assert store.put([item(1)]) == [True]
    store.commit()
    store.put([item(2)])
    store.close()
    store = SqliteStore(tmp_path / "q")
    assert [brief.id for brief in store.recent(10)] == ["1"]
    store.close()


def test_the_log_is_synced_at_each_commit(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    store.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    again = f"from pathlib import Path; import {SqliteStore.__module__} as m; m.SqliteStore(Path('q'), wait_s=0.0)"
    second = subprocess.run([sys.executable, "-c", again], cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)},
                            capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert "database is locked" in second.stderr
    store.close()


def test_the_index_of_the_log_is_in_memory_alone(tmp_path: Path) -> None:
    for start in range(1, 3):
        store = SqliteStore(tmp_path / "q.sqlite")
        store.put([item(start)])
        store.commit()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["q.sqlite", "q.sqlite-wal"]
        store.close()


def test_a_schema_of_the_future_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "q").close()
    with sqlite3.connect(tmp_path / "q") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreFailed, match="schema 99"):
        SqliteStore(tmp_path / "q")


def test_duplicates_are_told_one_by_one(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    assert store.put([item(1, "x"), item(2, "y"), item(3, "x")]) == [True, True, False]
    taken, more = store.take("a", "bob", 10, 2**20, 1000.0)
    assert ([t.id for t in taken], more) == (["x", "y"], False)
    store.close()


def test_take_stops_at_its_bytes_and_says_that_there_is_more(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    store.put([item(n, body=b"x" * 100) for n in range(1, 6)])
    taken, more = store.take("a", "bob", 10, 250, 1000.0)
    assert ([t.seq for t in taken], more) == ([1, 2], True)
    store.close()


def test_without_a_commit_there_is_no_acknowledgement(tmp_path: Path) -> None:
    class Broken(SqliteStore):
        def commit(self) -> None:
            raise StoreFailed("The queue's store failed: disk I/O error.")

    desk = Desk(tmp_path)
    desk.store.close()
    desk.start(Broken(tmp_path / "queue.sqlite"))
    desk.hello("alice")
    desk.heard("alice")
    with pytest.raises(StoreFailed):
        desk.publish("alice", wire.Item("a", "1"))
    assert desk.heard("alice") == []


def test_what_is_not_a_full_disk_ends_the_broker(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    store._db.execute("DROP TABLE body")
    store.put([item(1)])
    with pytest.raises(StoreFailed):
        store.commit()
    store.close()


def test_a_full_disk_is_told_apart_and_can_be_undone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    store.put([item(1)])
    store.commit()
    store._db.execute("PRAGMA max_page_count = 30")
    with pytest.raises(StoreFull):
        store.put([item(n) for n in range(2, 9999)])
    store.rollback()
    assert [brief.id for brief in store.recent(10)] == ["1"]
    store.close()


def test_settled_items_are_remembered_up_to_a_number_and_a_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path, keep_rows=10, keep_s=100.0)
    desk.hello("alice")
    desk.consume("alice", "a", credit=100)
    for n in range(30):
        desk.publish("alice", wire.Item("a", str(n)))
        (handed,) = desk.deliveries("alice")
        desk.settle("alice", handed.token)
        desk.clock.advance(0.1)
    assert len(desk.store.recent(100)) <= 11
    assert desk.engine._stats().remembered_s == pytest.approx(1.1, abs=0.2)
    assert desk.publish("alice", wire.Item("a", "29")) == wire.DUPLICATE
    assert "forgotten before their time" in caplog.text
    desk.clock.advance(101.0)
    desk.turn()
    assert desk.store.recent(100) == []
    assert desk.engine._stats().remembered_s == 100.0


def test_a_clock_that_is_set_forward_makes_no_id_forgotten_before_its_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path, keep_s=100.0)
    desk.hello("alice")
    desk.consume("alice", "a")
    desk.publish("alice", wire.Item("a", "1"))
    (handed,) = desk.deliveries("alice")
    desk.settle("alice", handed.token)
    desk.clock.unix += 1000.0
    for _ in range(9):
        desk.clock.advance(11.0)
        assert desk.publish("alice", wire.Item("a", "1")) == wire.DUPLICATE
    assert caplog.text.count("was set forward") == 1
    desk.clock.advance(22.0)
    desk.turn()
    assert desk.store.recent(100) == []


def test_an_id_is_remembered_for_its_time_whatever_the_traffic(tmp_path: Path) -> None:
    desk = Desk(tmp_path, keep_s=100.0)
    desk.hello("alice")
    desk.consume("alice", "a", credit=4096)
    for again in range(4):
        batch = tuple(wire.Item("a", str(n)) for n in range(1000))
        statuses = desk.ask("alice", wire.Publish(1, batch), *[b""] * 1000).statuses
        assert set(statuses) == {wire.DUPLICATE if again else wire.STORED}
        if not again:
            ended = tuple(wire.Outcome(handed.token, wire.DONE) for handed in desk.deliveries("alice"))
            assert len(desk.ask("alice", wire.Settle(3, ended)).statuses) == 1000
        desk.clock.advance(30.0)
        desk.turn()
    assert desk.engine._stats().remembered_s == 100.0
    desk.clock.advance(1.0)
    desk.turn()
    assert desk.engine._stats().remembered == 0


def test_a_number_is_never_used_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, keep_s=1.0)
    desk.hello("alice")
    desk.consume("alice", "a")
    desk.publish("alice", wire.Item("a", "1"))
    (old,) = desk.deliveries("alice")
    desk.settle("alice", old.token)
    desk.clock.advance(5.0)
    desk.turn()
    assert desk.store.recent(10) == []
    desk.restart()
    desk.hello("alice")
    desk.consume("alice", "a")
    desk.publish("alice", wire.Item("a", "2"))
    (new,) = desk.deliveries("alice")
    assert new.token[0] > old.token[0]
    assert desk.settle("alice", old.token) == wire.STALE


def test_states_are_in_the_order_in_which_they_are_named() -> None:
    assert [state.name.lower() for state in State] == list(STATE_NAMES)


def test_a_dead_letter_can_be_looked_at_requeued_and_purged(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    store.put([item(1, body=b"one"), item(2)])
    store.take("a", "bob", 1, 2**20, 1000.0)
    store.bury(1, 2, 1001.0, "broken")
    assert [b.seq for b in store.browse("*", State.DEAD, 0, 10)] == [1]
    assert [r.seq for r in store.requeue([1, 2, 3], 1002.0)] == [1]
    detail = store.look(1)
    assert detail is not None
    assert (detail.state, detail.attempt, detail.body) == (State.READY, 0, b"one")
    assert [line.what for line in detail.history] == ["requeued"]
    standing = store.find(1)
    assert standing is not None
    assert standing.fence == 3
    assert [(p.seq, p.was) for p in store.purge([1, 1, 9], 1003.0)] == [(1, State.READY)]
    assert store.knows("alice", "1")
    assert [t.seq for t in store.take("a", "bob", 9, 2**20, 1004.0)[0]] == [2]
    assert store.purge([2], 1005.0) == []
    store.close()


def test_a_backup_is_a_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    store.put([item(1)])
    store.commit()
    with contextlib.closing(store.still()) as still:
        store.put([item(2, body=b"x" * 2**20)])
        store.commit()  # while it is held still, the store goes on
        still.copy(tmp_path / "copy")
    store.close()
    copy = SqliteStore(tmp_path / "copy")
    assert [b.id for b in copy.recent(10)] == ["1"]
    copy.close()


def test_a_copy_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    with contextlib.closing(store.still()) as still, pytest.raises(CopyFailed):
        still.copy(tmp_path)
    assert [path.name for path in tmp_path.parent.iterdir() if path.name.endswith(".new")] == []
    store.close()


def test_a_check_finds_what_is_wrong(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    store.put([item(1), item(2)])
    store.commit()
    with contextlib.closing(store.still()) as still:
        assert still.check() == ["The counts of a are wrong."]
    store.progress(0.0, {"a": Counts(ready=2, bytes=2)})
    store.commit()
    with contextlib.closing(store.still()) as still:
        assert still.check() == []
    store.close()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM body WHERE seq = 1", "1 messages have lost their body."),
        ("INSERT INTO body VALUES (9, x'00')", "1 bodies belong to no message that is waiting."),
        ("DELETE FROM ready WHERE seq = 1", "1 messages are not where they are looked for."),
        ("INSERT INTO ready VALUES ('b', 2)", "1 messages are not where they are looked for."),
        ("INSERT INTO ready VALUES ('a', 9)", "1 messages are not where they are looked for."),
        ("UPDATE clock SET forgotten = -7", "0 messages have ended, not 7."),
        ("UPDATE counts SET ready = 1", "The counts of a are wrong."),
        ("INSERT INTO counts VALUES ('b', 1, 0, 0, 0, 0, 0, 0, 0)", "The counts of b are wrong."),
    ],
)
def test_a_check_finds_what_is_damaged(tmp_path: Path, damage: str, found: str) -> None:
    store = SqliteStore(tmp_path / "q")
    store.put([item(1), item(2)])
    store.progress(0.0, {"a": Counts(ready=2, bytes=2)})
    store.commit()
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "q", isolation_level=None)) as db:
        db.execute(damage)
    store = SqliteStore(tmp_path / "q")
    with contextlib.closing(store.still()) as still:
        assert still.check() == [found]
    store.close()


def test_unused_pages_go_back_to_the_file_system(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "q")
    store.put([item(n, body=b"x" * 8000) for n in range(1, 101)])
    store.purge(range(1, 101), 1000.0)
    store.commit()
    assert store.compact(50) == 50
    assert store.compact(1000) > 40
    store.close()


def test_a_store_of_the_second_version_remembers_as_many_as_it_did(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "q") as db:
        db.executescript(schema.VERSION_1 + schema.VERSION_2 + "PRAGMA user_version = 2;")
        for seq, state in ((1, 2), (2, 4), (3, 5), (4, 0)):
            row = (seq, str(seq), state, 0, "bob", None, None)
            rest = "?, ?, ?, NULL, NULL, 1.0, 1.0, 0, '', NULL"
            db.execute(f"INSERT INTO work VALUES (?, 'alice', ?, 'a', ?, ?, 3, 1, {rest})", row)
        db.execute("INSERT INTO body VALUES (4, x'')")
        db.execute("INSERT INTO ready VALUES ('a', 4)")
        db.execute("INSERT INTO counts VALUES ('a', 1, 0, 0, 0, 50, 6, 7, 1)")
        db.execute("UPDATE clock SET at = 2.5, next_seq = 60, settled = 3")
    db.close()
    store = SqliteStore(tmp_path / "q")
    snapshot = store.load()
    assert (snapshot.clock, snapshot.next_seq, Ledger(snapshot).settled_rows) == (2.5, 60, 3)
    with contextlib.closing(store.still()) as still:
        assert still.check() == []
    assert store.forget(2.0, 2) == 2
    assert Ledger(store.load()).settled_rows == 1
    store.close()


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "q") as db:
        db.executescript(schema.VERSION_1 + "PRAGMA user_version = 1;")
        for seq, state, key, due in (
            (1, 2, None, None), (2, 4, None, None), (3, 3, "k", None), (4, 1, "k", None), (5, 0, "k", None),
            (6, 0, None, 9.0), (7, 0, None, None),
        ):  # fmt: skip
            row = (seq, str(seq), state, state == State.LEASED, key, due)
            rest = "'bob', ?, ?, NULL, NULL, 1.0, 1.0, 4, ''"
            db.execute(f"INSERT INTO work VALUES (?, 'alice', ?, 'a', ?, ?, 3, 1, {rest})", row)
            if state in (State.READY, State.LEASED, State.DEAD):
                db.execute("INSERT INTO body VALUES (?, x'01020304')", (seq,))
        db.execute("INSERT INTO totals VALUES ('a', 5, 6, 7)")
        db.execute("INSERT INTO totals VALUES ('b', 1, 0, 0)")
    db.close()
    store = SqliteStore(tmp_path / "q")
    snapshot = store.load()
    assert snapshot.counts == {
        "a": Counts(ready=3, leased=1, dead=1, bytes=20, done_total=5, dead_total=6, expired_total=7),
        "b": Counts(done_total=1),
    }
    assert (snapshot.next_seq, Ledger(snapshot).settled_rows) == (8, 2)
    assert [(h.seq, h.fence, h.attempt, h.holder) for h in snapshot.held] == [(4, 1, 1, "bob")]
    assert [store.browse("*", state, 0, 9)[0].seq for state in State if state is not State.PURGED] == [5, 4, 1, 3, 2]
    assert [t.seq for t in store.take("a", "bob", 9, 2**20, 1000.0)[0]] == [7]
    store.finish([4], 1000.0)
    assert [(t.seq, t.body) for t in store.take("a", "bob", 9, 2**20, 1000.0)[0]] == [(5, b"\1\2\3\4")]
    assert store.next_times() == (9.0, None)
    store.rollback()
    assert store._db.execute("PRAGMA auto_vacuum").fetchone()[0] == 2  # incremental
    with contextlib.closing(store.still()) as still:
        assert still.check() == []
    store.close()

"""The store with its redo log: what was committed is there after any end, and what was undone is not."""

import contextlib
import errno
import inspect
import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from appliance.queue import logged_store, redo, turns
from appliance.queue.errors import StoreDamaged, StoreFailed, StoreFull
from appliance.queue.logged_store import LoggedStore, open_store
from appliance.queue.store import Counts, NewItem, State, Store
from tests.unit.queue.narrow import NarrowStore

WALL = 1000.0


def item(seq: int, body: bytes = b"x") -> NewItem:
    return NewItem(seq, "alice", str(seq), "a", body, 3, WALL)


def put(store: Store, *seqs: int) -> None:
    """Commit these items, a turn for each."""
    for seq in seqs:
        store.put([item(seq)])
        store.progress(None, {"a": Counts(ready=seq)})
        store.commit()


def killed(store: Path, without: str = "") -> LoggedStore:
    """Return what the next start finds if the broker is killed now, and files of that pattern are lost."""
    again = store.parent / "again"
    shutil.rmtree(again, ignore_errors=True)
    shutil.copytree(store.parent, again, ignore=shutil.ignore_patterns("again", without))
    return open_store(again / store.name)


def seqs(store: Store) -> list[int]:
    return sorted(brief.seq for brief in store.recent(1000))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "q"


def test_a_step_is_a_method_of_the_store_with_its_arguments() -> None:
    steps = turns.Step.__subclasses__()
    for kind in steps:
        method = inspect.signature(getattr(Store, str(kind.__struct_config__.tag)))
        arguments = [name for name in method.parameters if name != "self"]
        fields = [field.name for field in msgspec.structs.fields(kind)]
        assert fields == [*arguments, *(["taken"] if kind is turns.Take else [])]
    reading = {"load", "next_times", "remembered_since", "find", "knows", "look", "browse", "recent"}
    keeping = {"commit", "rollback", "still", "compact", "tidy", "close"}
    methods = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}
    assert {str(kind.__struct_config__.tag) for kind in steps} == methods - reading - keeping


def test_what_was_committed_outlives_a_kill_before_any_table_was_written(path: Path) -> None:
    store = open_store(path)
    put(store, 1, 2, 3)
    taken, _ = store.take("a", "bob", 2, 2**20, WALL)
    store.finish([1], WALL)
    store.commit()
    with contextlib.closing(killed(path, without="*-redo?")) as again:
        assert seqs(again) == [], "the tables have none of it"
    with contextlib.closing(killed(path)) as again:
        states = [again.look(seq) for seq in (1, 2, 3)]
        assert [each.state for each in states if each is not None] == [State.DONE, State.LEASED, State.READY]
        assert again.load().counts == {"a": Counts(ready=3)}
        assert [held.fence for held in again.load().held] == [taken[1].fence]
    store.close()


def test_what_was_not_committed_does_not_and_what_was_before_it_does(path: Path) -> None:
    store = open_store(path)
    put(store, 1, 2)
    store.put([item(3)])
    store.take("a", "bob", 9, 2**20, WALL)
    with contextlib.closing(killed(path)) as again:
        assert (seqs(again), again.load().held) == ([1, 2], [])
    store.rollback()
    assert (seqs(store), store.load().held) == ([1, 2], [])
    put(store, 4)
    store.put([item(5)])
    store.close()
    with contextlib.closing(open_store(path)) as store:
        assert seqs(store) == [1, 2, 4]


def test_the_log_is_handed_over_while_the_store_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_store, "HAND_OVER_BYTES", 500)
    monkeypatch.setattr(redo, "FILE_BYTES", 2000)
    store = open_store(path, lay_out=True)
    for seq in range(1, 300):
        put(store, seq)
        if seq % 50 == 7:
            with contextlib.closing(killed(path)) as again:
                assert seqs(again) == list(range(1, seq + 1))
    assert all(file.stat().st_size < 3 * 2000 for file in redo.files(path))
    store.close()


def test_a_clean_end_leaves_everything_in_the_tables(path: Path) -> None:
    store = open_store(path)
    put(store, 1, 2)
    store.close()
    for file in redo.files(path):
        file.unlink()
    with contextlib.closing(open_store(path)) as store:
        assert seqs(store) == [1, 2]


@pytest.mark.parametrize("step", ["requeue", "purge"])
def test_a_step_that_changes_nothing_keeps_nobody_from_looking(path: Path, step: str) -> None:
    store = open_store(path)
    assert getattr(store, step)([7], WALL) == []
    assert not store.changed
    with contextlib.closing(store.still()) as still:
        assert still.check() == []
    store.purge([7], WALL)
    store.compact(1)
    store.close()


def test_a_few_bytes_of_log_that_change_many_rows_are_handed_over_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logged_store, "HAND_OVER_CHANGES", 100)
    store = open_store(path)
    store.put([NewItem(seq, "alice", str(seq), "a", b"", 3, WALL, expires_at=WALL + 1) for seq in range(1, 91)])
    store.commit()
    with contextlib.closing(killed(path, without="*-redo?")) as again:
        assert len(seqs(again)) == 90, "that was 270 rows"
    for _ in range(3):
        assert len(store.expire(WALL + 2, 30)) == 30
        store.commit()
    assert len(store._kept) <= 1
    with contextlib.closing(killed(path)) as again:
        assert again.browse("a", State.READY, 0, 100) == []
    store.close()


def test_a_full_disk_bounds_what_is_held_until_it_has_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_store, "MOST_TURNS", 5)
    store = NarrowStore(path)
    store.tables.commits = False
    monkeypatch.setattr(logged_store, "HAND_OVER_BYTES", 1)
    put(store, 1, 2, 3, 4, 5)
    with pytest.raises(StoreFull):
        put(store, 6)
    store.rollback()
    assert seqs(store) == [1, 2, 3, 4, 5]
    store.tables.commits = True
    monkeypatch.setattr(store, "_again_at", 0.0)
    store.tidy()
    put(store, 6)
    store.close()
    with contextlib.closing(open_store(path)) as again:
        assert seqs(again) == [1, 2, 3, 4, 5, 6]


def test_while_nobody_waits_less_is_handed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_store, "QUIET_BYTES", 300)
    store = open_store(path)
    put(store, 1)
    store.tidy()
    with contextlib.closing(killed(path, without="*-redo?")) as tables:
        assert seqs(tables) == []
    put(store, 2, 3, 4, 5)
    store.tidy()
    with contextlib.closing(killed(path, without="*-redo?")) as tables:
        assert seqs(tables) == [1, 2, 3, 4, 5]
    store.close()


def test_half_a_step_is_not_kept_by_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(path)
    put(store, 1)
    whole = store._tables.put

    def half(items: Sequence[NewItem]) -> list[bool]:
        whole(items[:1])
        raise MemoryError

    monkeypatch.setattr(store._tables, "put", half)
    with pytest.raises(MemoryError):
        store.put([item(2), item(3)])
    store.close()
    with contextlib.closing(open_store(path)) as store:
        assert seqs(store) == [1]


def test_a_sync_of_the_tables_that_failed_once_has_failed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(path)
    put(store, 1)
    store._hand_over()

    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(StoreFailed):
            store._tables.secure()
    with pytest.raises(StoreFailed):
        store._tables.secure()
    assert store._tables.secured == 0
    with pytest.raises(StoreFailed):
        store.tidy()
    store.close()
    with contextlib.closing(open_store(path)) as store:
        assert seqs(store) == [1]


def test_a_log_that_fails_is_not_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(path)
    put(store, 1)

    def fail(*_: object) -> None:
        raise StoreFailed("The queue's log cannot be written: broken.")

    with monkeypatch.context() as patch:
        patch.setattr(store._redo, "append", fail)
        store.put([item(2)])
        with pytest.raises(StoreFailed):
            store.commit()
        store.close()
    with contextlib.closing(open_store(path)) as store:
        assert seqs(store) == [1]


@pytest.mark.parametrize("where", ["checkpoint", "replay"])
def test_what_is_half_undone_is_not_handed_over_by_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    store = open_store(path)
    put(store, 1, 2, 3)
    done = 0

    def fail(*_: object) -> None:
        nonlocal done
        done += 1
        if where == "checkpoint" or done == 2:
            raise StoreFailed("The queue's store failed: disk I/O error.")

    owner: object = store._tables._checkpoints if where == "checkpoint" else store
    monkeypatch.setattr(owner, "make" if where == "checkpoint" else "_do", fail)
    store.put([item(4)])
    with pytest.raises(StoreFailed):
        store.rollback()
    store.close()
    with contextlib.closing(open_store(path)) as store:
        assert seqs(store) == [1, 2, 3]


def test_tables_that_cannot_be_written_at_the_end_are_made_up_for_at_the_next_start(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(path)
    put(store, 1, 2)
    store._tables._db.execute("ROLLBACK")  # as SQLite itself does after some errors
    store.close()
    assert "does the last turns again" in caplog.text
    with contextlib.closing(open_store(path)) as store:
        assert seqs(store) == [1, 2]


def test_tables_that_have_no_room_at_a_start_keep_nobody_from_work(path: Path) -> None:
    store = open_store(path)
    put(store, 1, 2)
    left = path.parent.with_name("left")
    shutil.copytree(path.parent, left)
    store.close()

    class Full(NarrowStore):
        def _hand_over(self) -> None:
            self.tables.commits = False
            super()._hand_over()

    full = Full(left / path.name)
    assert full._again_at is not None
    put(full, 3)
    assert seqs(full) == [1, 2, 3]
    full.close()
    with contextlib.closing(open_store(left / path.name)) as store:
        assert seqs(store) == [1, 2, 3]


def test_a_log_that_does_not_fit_the_tables_is_damage(path: Path) -> None:
    store = open_store(path)
    put(store, 1, 2)
    store.take("a", "bob", 1, 2**20, WALL)
    store.commit()
    left = path.parent.with_name("left")
    shutil.copytree(path.parent, left)
    store.close()
    with contextlib.closing(sqlite3.connect(left / path.name)) as db:
        db.execute(
            "INSERT INTO work VALUES (0, 'eve', '', 'a', 0, 0, 3, 0, '', NULL, NULL, NULL, NULL, 1.0, 1.0, 0, '', NULL)"
        )
        db.execute("INSERT INTO ready VALUES ('a', 0)")
        db.execute("INSERT INTO body VALUES (0, x'')")
        db.commit()
    with pytest.raises(StoreDamaged, match="takes other messages"):
        open_store(left / path.name)


def test_a_turn_of_another_firmware_is_told(path: Path) -> None:
    open_store(path).close()
    log = redo.RedoLog(path)
    log.append(1, msgspec.msgpack.encode([["conjure", 1]]))
    log.close()
    with pytest.raises(StoreFailed, match="cannot read"):
        open_store(path)

"""The fault layer under a real kernel, and under a real SQLite in a process that is killed."""

import errno
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.queue.errors import StoreDamaged, StoreFailed
from appliance.queue.logged_store import open_store
from tests.chaos.layer import REPOSITORY, RUN, Layer, mounted, swept
from tests.unit.queue.test_store import item

DIED_WITHIN_S = 30


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[Layer]:
    with mounted(tmp_path / "disk") as disk:
        yield disk


def sync_names(layer: Layer) -> None:
    descriptor = os.open(layer.directory, os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_a_cut_takes_what_was_not_synced(layer: Layer) -> None:
    path = layer.directory / "a"
    with path.open("wb", buffering=0) as file:
        file.write(b"synced")
        os.fsync(file.fileno())
        sync_names(layer)
        file.write(b" not synced")
    assert path.read_bytes() == b"synced not synced"
    assert layer.count("unsynced") == 1
    layer.cut()
    assert path.read_bytes() == b"synced"


def test_a_rename_and_a_truncation_are_seen_at_once_and_last_when_synced(layer: Layer) -> None:
    old, new = layer.directory / "old", layer.directory / "new"
    with old.open("wb") as file:
        file.write(b"0123456789")
        file.flush()
        os.fsync(file.fileno())
    sync_names(layer)
    old.rename(new)
    os.truncate(new, 4)
    assert (os.listdir(layer.directory), new.read_bytes()) == (["new"], b"0123")
    layer.cut()
    assert (os.listdir(layer.directory), old.read_bytes()) == (["old"], b"0123456789")
    old.rename(new)
    sync_names(layer)
    layer.cut()
    assert (os.listdir(layer.directory), new.read_bytes()) == (["new"], b"0123456789")


def test_the_faults_reach_the_process_that_writes(layer: Layer) -> None:
    with (layer.directory / "a").open("wb", buffering=0) as file:
        for fault, expected in (("write", errno.EIO), ("full", errno.ENOSPC)):
            layer.fault(fault)
            with pytest.raises(OSError, match=os.strerror(expected)) as failure:
                file.write(b"data")
            assert failure.value.errno == expected
        assert os.statvfs(layer.directory).f_bavail == 0
        layer.fault("sync")
        file.write(b"data")
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.fsync(file.fileno())
        layer.fault("none")
        os.fsync(file.fileno())
    assert os.statvfs(layer.directory).f_bavail > 0
    assert layer.count("refused") == 3
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        layer.fault("something else")


WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", f"synchronous = {sys.argv[2]}"):
    db.execute("PRAGMA " + pragma)
db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body TEXT)")
for n in range(1, 100000):
    db.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 500))
    print(n, flush=True)
"""


def killed(writer: str, number: int, *arguments: str) -> int:
    """Let a script write until it says this number, kill it, and return the last number that it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", writer, *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout is not None
    said = 0
    with process:
        for line in process.stdout:
            said = int(line)
            if said == number:
                process.kill()
    return said


def committed(layer: Layer, synchronous: str, seed: str) -> tuple[int, int, list[str]]:
    """Kill a writer and the power; return what it said it had committed, and what SQLite finds."""
    path = layer.directory / "t.sqlite"
    said = killed(WRITER, 200, str(path), synchronous)
    assert sorted(os.listdir(layer.directory)) == ["t.sqlite", "t.sqlite-wal"]  # exclusive locking: no shared memory
    layer.cut(seed)
    db = sqlite3.connect(path)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    integrity = [row[0] for row in db.execute("PRAGMA integrity_check")]
    tables = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 't'").fetchone()[0]
    found = db.execute("SELECT coalesce(max(n), 0) FROM t").fetchone()[0] if tables else 0
    db.close()
    return said, found, integrity


@pytest.mark.parametrize("seed", ["", "1", "2"], ids=["all lost", "some lost", "others lost"])
def test_sqlite_keeps_every_commit_through_a_cut_when_it_syncs(layer: Layer, seed: str) -> None:
    said, found, integrity = committed(layer, "FULL", seed)
    assert integrity == ["ok"]
    assert said <= found <= said + 1
    assert layer.count("syncs") >= said


def test_sqlite_loses_commits_in_a_cut_when_it_does_not_sync(layer: Layer) -> None:
    said, found, _ = committed(layer, "OFF", "")
    assert found < said


COMMIT = """
import os, sys
from pathlib import Path
from appliance.queue.logged_store import open_store
from tests.unit.queue.test_store import item
store = open_store(Path(sys.argv[1]))
store.put([item(int(sys.argv[2]))])
store.commit()
os._exit(0)
"""


def test_a_failed_sync_leaves_no_gap_under_what_is_committed_after_the_restart(layer: Layer) -> None:
    path = layer.directory / "queue.sqlite"
    store = open_store(path)
    store.put([item(1)])
    store.commit()
    layer.fault("sync")
    store.put([item(2)])
    with pytest.raises(StoreFailed):
        store.commit()
    store.close()
    layer.fault("none")
    subprocess.run([sys.executable, "-c", COMMIT, str(path), "3"], cwd=REPOSITORY, check=True, timeout=DIED_WITHIN_S)
    layer.cut()
    store = open_store(path)
    found = {brief.seq for brief in store.recent(10)}
    store.close()
    assert found >= {1, 3}


TURNS = """
import sys
from pathlib import Path
from appliance.queue import logged_store, redo, sqlite_file
from tests.unit.queue.test_store import item
logged_store.HAND_OVER_BYTES, redo.FILE_BYTES = 3000, 10_000
if sys.argv[2] == "early":
    sqlite_file.LOG_PAGES = 10**6  # nor do checkpoints sync it
    sqlite_file.Checkpoints.secure = lambda self: setattr(self, "secured", self._committed)
store = logged_store.open_store(Path(sys.argv[1]))
for n in range(1, 100000):
    store.put([item(n, body=b"x" * 100)])
    store.commit()
    print(n, flush=True)
"""


def turns(layer: Layer, how: str, seed: str) -> tuple[int, list[int]]:
    """Kill a store that hands its log over all the time, and the power; return what it said, and what there is."""
    path = layer.directory / "queue.sqlite"
    said = killed(TURNS, 500, str(path), how)
    layer.cut(seed)
    store = open_store(path)
    found = sorted(brief.seq for brief in store.recent(10_000))
    store.close()
    return said, found


@pytest.mark.parametrize("seed", ["", "1", "2"], ids=["all lost", "some lost", "others lost"])
def test_the_store_keeps_every_turn_through_a_cut(layer: Layer, seed: str) -> None:
    said, found = turns(layer, "as it is", seed)
    assert found == list(range(1, len(found) + 1))
    assert said <= len(found) <= said + 1


def test_a_log_that_is_used_again_before_the_tables_are_synced_is_found_out(layer: Layer) -> None:
    with pytest.raises(StoreDamaged, match="does not go on"):
        turns(layer, "early", "")


LEFT = """
import sys, time
from pathlib import Path
from tests.chaos.layer import mounted
with mounted(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(600)
"""


def test_what_a_killed_run_has_left_is_swept_and_what_is_in_use_is_not(layer: Layer) -> None:
    run = Path(tempfile.mkdtemp(prefix=RUN))
    disk = run / "a" / "state"
    disk.parent.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", LEFT, str(disk)], cwd=REPOSITORY, stdout=subprocess.PIPE
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        assert disk not in swept()
        process.kill()
    end = time.monotonic() + DIED_WITHIN_S
    while disk not in swept():
        assert time.monotonic() < end, "the disk is served by somebody still"
        time.sleep(0.01)
    assert not run.exists()
    assert os.path.ismount(layer.directory)

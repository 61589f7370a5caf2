"""Every store holds to the rules for stores, and agrees with the model whatever is done to both."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.queue import logged_store, redo
from appliance.queue.logged_store import LoggedStore, open_store
from appliance.queue.redo import RedoLog
from appliance.queue.sqlite_store import SqliteStore
from appliance.queue.store import Counts, Given, NewItem, Record, State, Store
from tests.unit.queue.conformance import MUCH, Conformance, Open
from tests.unit.queue.desk import temporary_directory
from tests.unit.queue.model import Disk, ModelStore

T = TypeVar("T")


class TestSqliteStore(Conformance):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Open:
        return lambda: SqliteStore(tmp_path / "q.sqlite")


class TestLoggedStore(Conformance):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Open:
        return lambda: open_store(tmp_path / "q.sqlite")


class TestModelStore(Conformance):
    @pytest.fixture
    def opened(self) -> Open:
        disk = Disk()
        return lambda: ModelStore(disk)


ADDRESS = st.sampled_from(["a", "a", "a", "lan/main/b"])
SEVERAL = st.lists(st.integers(0, 30), min_size=1, max_size=4)
LATER = st.sampled_from([None] * 12 + [1.0, 3.0])
NEW = st.tuples(st.integers(1, 200), ADDRESS, st.sampled_from([None, "k", "k", "k", "l"]), LATER, LATER, LATER)
Wish = tuple[int, str, str | None, float | None, float | None, float | None]


class Twins(RuleBasedStateMachine):
    """Does the same to a store and the model and compares what they answer, and after each step all that they show."""

    ours: Store

    def __init__(self) -> None:
        super().__init__()
        self.folder = temporary_directory()
        self.path = Path(self.folder.name) / "0" / "q"
        self.path.parent.mkdir()
        self.disk = Disk()
        self.time = 0.0
        self.next_seq = 1
        self.open()

    def open(self) -> None:
        self.ours = self.opened()
        self.model = ModelStore(self.disk)

    def opened(self) -> Store:
        """Open the store that is compared."""
        raise NotImplementedError

    def teardown(self) -> None:
        self.ours.close()
        self.folder.cleanup()

    def both(self, do: Callable[[Store], T]) -> T:
        ours, theirs = do(self.ours), do(self.model)
        assert ours == theirs
        return ours

    @initialize(new=st.lists(NEW, min_size=5, max_size=9))
    def begin(self, new: list[Wish]) -> None:
        self.put(new)

    @rule(new=st.lists(NEW, min_size=1, max_size=5))
    def put(self, new: list[Wish]) -> None:
        items = []
        for name, address, key, *waits in new:
            due, begins, ends = (None if wait is None else self.time + wait for wait in waits)
            body = bytes(name)
            items.append(NewItem(self.next_seq, "o", str(name), address, body, 3, self.time, due, begins, ends, key))
            self.next_seq += 1
        self.both(lambda store: store.put(items))

    @rule(address=ADDRESS, limit=st.integers(1, 4), room=st.sampled_from([10, MUCH]))
    def take(self, address: str, limit: int, room: int) -> None:
        self.both(lambda store: store.take(address, "bob", limit, room, self.time))

    def some(self, picks: list[int], *states: State) -> list[int]:
        """Return up to as many items that are in one of these states."""
        seqs = [brief.seq for brief in reversed(self.model.recent(1000)) if brief.state in states]
        return list(dict.fromkeys(seqs[pick % len(seqs)] for pick in picks)) if seqs else []

    @rule(picks=SEVERAL, how=st.sampled_from(["finish", "give back", "bury", "bury"]), wait=LATER)
    def settle(self, picks: list[int], how: str, wait: float | None) -> None:
        seqs = self.some(picks, State.LEASED)
        if how == "finish":
            self.both(lambda store: store.finish(seqs, self.time))
        elif how == "give back":
            due = None if wait is None else self.time + wait
            self.both(lambda store: store.give_back([Given(seq, 50, 1, due, "why") for seq in seqs], self.time))
        else:
            for store in (self.ours, self.model):
                for seq in seqs:
                    store.bury(seq, 60, self.time, "broken")
        self.both(lambda store: store.write_history([Record(seq, self.time, 1, "bob", how, "") for seq in seqs]))

    @rule(picks=SEVERAL, how=st.sampled_from(["requeue", "requeue", "requeue", "purge"]))
    def operate(self, picks: list[int], how: str) -> None:
        if how == "requeue":
            dead = [*self.some(picks, State.DEAD), *picks]
            self.both(lambda store: store.requeue(dead, self.time))
        else:
            any_state = self.some(picks[:1], *State)
            self.both(lambda store: store.purge(any_state, self.time))

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]), keep_s=st.sampled_from([0.0, 99.0, 99.0]))
    def pass_time(self, seconds: float, keep_s: float) -> None:
        self.time += seconds
        self.both(lambda store: store.wake(self.time, self.time))
        self.both(lambda store: sorted(store.expire(self.time, 100)))
        self.both(lambda store: store.forget(self.time - keep_s, 1000))

    @rule(end=st.sampled_from(["commit"] * 6 + ["rollback", "reopen"]))
    def end(self, end: str) -> None:
        counts = {"a": Counts(ready=self.next_seq)}
        self.both(lambda store: store.progress(self.time, counts))
        if end == "commit":
            self.both(lambda store: store.commit())
        elif end == "rollback":
            self.both(lambda store: store.rollback())
        else:
            self.both(lambda store: store.close())
            self.open()
        assert not self.ours.changed

    @invariant()
    def both_show_the_same(self) -> None:
        self.both(lambda store: store.load())
        self.both(lambda store: store.next_times())
        self.both(lambda store: store.remembered_since())
        shown = self.both(lambda store: store.recent(1000))
        self.both(lambda store: [store.browse("*", state, 2, 1000) for state in State])
        self.both(lambda store: [(store.look(brief.seq), store.find(brief.seq)) for brief in shown])


class SqliteTwins(Twins):
    def opened(self) -> Store:
        """See Twins."""
        store = SqliteStore(self.path)
        store._db.execute("PRAGMA synchronous = OFF")  # nothing here pulls the plug
        return store


class LoggedTwins(Twins):
    """Here the broker is killed, too, and goes on with what the files hold then."""

    def __init__(self) -> None:
        super().__init__()
        self.lives = 0

    def opened(self) -> Store:
        """See Twins."""
        tables = SqliteStore(self.path, logged=True)
        tables._db.execute("PRAGMA synchronous = OFF")
        return LoggedStore(tables, RedoLog(self.path))

    @rule()
    def die(self) -> None:
        """Go on as after a kill, with what the files hold."""
        self.lives += 1
        left = self.path.parent
        self.path = left.with_name(str(self.lives)) / "q"
        shutil.copytree(left, self.path.parent)
        self.ours.close()
        self.open()


TestTwins = SqliteTwins.TestCase
TestTwins.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True)
TestLoggedTwins = LoggedTwins.TestCase
TestLoggedTwins.settings = TestTwins.settings


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that hands its turns over, and begins its files anew, after a few of them."""
    monkeypatch.setattr(logged_store, "HAND_OVER_BYTES", 600)
    monkeypatch.setattr(redo, "FILE_BYTES", 1000)

"""The cluster's state on disk."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.arclst.schema import MIGRATIONS, UnknownSchema, migrate
from appliance.arclst.state import NotStored, State
from appliance.contracts.flow import Flow, HttpDelivery, Set
from appliance.contracts.member import Member
from appliance.errors import NotFound

ONE = Member(name="arsrv-1", component="arsrv", v4="10.0.0.1", v6="fd00::1", port=7180)
MOVED = Member(name="arsrv-1", component="arsrv", v4="10.0.0.9", v6="fd00::1", port=7180)
ORDERS = Flow(name="orders", deliver=HttpDelivery(url="https://erp.example.org/"), steps=(Set(path="a", value=1),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cluster.sqlite"


@pytest.fixture
def state(path: Path) -> Iterator[State]:
    with State(path, clock=lambda: 1000.0) as state:
        yield state


def test_every_change_is_a_numbered_revision_with_who_when_and_what(state: State) -> None:
    assert state.revision == 0
    assert state.join(ONE) == 1
    assert state.put_flow(ORDERS, "admin") == 2
    assert state.delete_flow("orders", "admin") == 3
    assert [(r.number, r.at, r.who, r.what) for r in state.revisions()] == [
        (3, 1000.0, "admin", "flow orders was deleted"),
        (2, 1000.0, "admin", "flow orders was added"),
        (1, 1000.0, "arsrv-1", "arsrv-1 joined at 10.0.0.1 and fd00::1, port 7180"),
    ]


def test_what_changes_nothing_is_no_revision(state: State) -> None:
    state.join(ONE)
    state.put_flow(ORDERS, "admin")
    assert (state.join(ONE), state.put_flow(ORDERS, "somebody else")) == (2, 2)


def test_a_member_that_joins_from_elsewhere_has_one_address(state: State) -> None:
    state.join(ONE)
    assert state.join(MOVED) == 2
    assert state.members().members == (MOVED,)


def test_deleting_a_flow_that_is_not_there_is_refused_and_no_revision(state: State) -> None:
    with pytest.raises(NotFound, match="orders"):
        state.delete_flow("orders", "admin")
    assert state.revision == 0


def test_the_state_survives_a_restart(path: Path) -> None:
    with State(path) as state:
        state.join(ONE)
        state.put_flow(ORDERS, "admin")
        state.set_password("admin", "hash", "console")
        state.open_session(b"token", "admin")
    with State(path) as state:
        assert state.members().members == (ONE,)
        assert state.flows().flows == (ORDERS,)
        assert (state.members().revision, state.flows().revision) == (3, 3)
        assert state.password("admin") == "hash"
        assert (state.session(b"token") or ("",))[0] == "admin"


def test_commits_are_on_disk_before_they_are_said(path: Path, state: State) -> None:
    database = state._database
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_new_password_ends_the_users_sessions(state: State) -> None:
    state.set_password("admin", "hash", "console")
    state.open_session(b"token", "admin")
    state.set_password("admin", "other", "console")
    assert state.session(b"token") is None


def test_old_sessions_are_forgotten(path: Path) -> None:
    now = 0.0
    with State(path, clock=lambda: now) as state:
        state.set_password("admin", "hash", "console")
        for token in (b"old", b"idle", b"good"):
            state.open_session(token, "admin")
            now += 100
        state.touch_session(b"old")
        state.forget_sessions(opened_before=50, seen_before=150)
        assert [state.session(token) is not None for token in (b"old", b"idle", b"good")] == [False, False, True]


def test_a_change_that_the_disk_does_not_take_is_refused_and_undone(path: Path, state: State) -> None:
    state.join(ONE)
    (pages,) = state._database.execute("PRAGMA page_count").fetchone()
    state._database.execute(f"PRAGMA max_page_count = {pages}")
    big = Flow(name="big", deliver=ORDERS.deliver, steps=tuple(Set(path="a", value="x" * 5000) for _ in range(10)))
    with pytest.raises(NotStored) as refusal:
        state.put_flow(big, "admin")
    assert refusal.value.problem.code == "state-not-stored"
    assert (state.revision, state.flows().flows) == (1, ())


def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    migrate(database)
    migrate(database)
    further = (*MIGRATIONS, "CREATE TABLE further (x INTEGER) STRICT")
    migrate(database, further)
    assert database.execute("PRAGMA user_version").fetchone() == (len(further),)
    assert database.execute("SELECT count(*) FROM further").fetchone() == (0,)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    migrate(database)
    with pytest.raises(sqlite3.OperationalError):
        migrate(database, (*MIGRATIONS, "CREATE TABLE further (x INTEGER) STRICT; nonsense"))
    database.rollback()
    assert database.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'further'").fetchone() == (0,)


def test_the_state_of_a_newer_firmware_is_left_alone(path: Path) -> None:
    with State(path) as state:
        state._database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(UnknownSchema):
        State(path)

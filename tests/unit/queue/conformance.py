"""What every store must do. A subclass says how one is opened; see test_conformance.py."""

from collections.abc import Callable, Iterator

import pytest

from appliance.queue.store import Counts, Given, NewItem, Record, State, Store

Open = Callable[[], Store]
WALL = 1000.0
MUCH = 2**20


def item(
    seq: int, name: str = "", *, address: str = "a", body: bytes = b"x", key: str | None = None,
    due: float | None = None, not_before: float | None = None, expires_at: float | None = None, origin: str = "alice",
) -> NewItem:  # fmt: skip
    """Return an item that was published at WALL."""
    return NewItem(seq, origin, name or str(seq), address, body, 3, WALL, due, not_before, expires_at, key)


def take(store: Store, limit: int = 100, address: str = "a", wall: float = WALL) -> list[int]:
    """Lease to bob; return the numbers."""
    return [taken.seq for taken in store.take(address, "bob", limit, MUCH, wall)[0]]


def state_of(store: Store, seq: int) -> State | None:
    """Return where an item is in its life."""
    standing = store.find(seq)
    return None if standing is None else standing.state


class Conformance:
    """`opened` opens the one store of a test, again after each close."""

    @pytest.fixture
    def opened(self) -> Open:
        """Return what opens the store."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, opened: Open) -> Iterator[Store]:
        """An open store, for tests that do not close it."""
        store = opened()
        yield store
        store.close()

    def test_what_was_committed_is_there_after_a_close(self, opened: Open) -> None:
        store = opened()
        store.put([item(n, body=b"body %d" % n) for n in range(1, 5)])
        store.take("a", "bob", 1, MUCH, WALL + 1)
        store.progress(7.5, {"a": Counts(ready=2, done_total=4)})
        store.progress(None, {})
        store.write_history([Record(1, WALL, 1, "bob", "retried", "why")])
        store.commit()
        store.close()
        store = opened()
        snapshot = store.load()
        assert [(h.seq, h.fence, h.attempt, h.holder, h.size) for h in snapshot.held] == [(1, 1, 1, "bob", 6)]
        assert (snapshot.clock, snapshot.next_seq, snapshot.forgotten) == (7.5, 5, 0)
        assert snapshot.counts == {"a": Counts(ready=2, done_total=4)}
        assert [t.body for t in store.take("a", "bob", 9, MUCH, WALL)[0]] == [b"body 2", b"body 3", b"body 4"]
        detail = store.look(1)
        assert detail is not None
        assert detail.history == (Record(1, WALL, 1, "bob", "retried", "why"),)
        store.close()

    @pytest.mark.parametrize("how", ["rollback", "close"])
    def test_what_was_not_committed_is_not(self, opened: Open, how: str) -> None:
        store = opened()
        store.put([item(1), item(2), item(3, key="k"), item(4, key="k"), item(5, due=5.0)])
        assert take(store, 2) == [1, 2]
        store.bury(2, 1, WALL, "broken")
        store.commit()
        before = [store.look(seq) for seq in range(1, 7)]
        store.put([item(6)])
        store.finish([1], WALL)
        store.requeue([2], WALL)
        store.purge([3], WALL)
        store.wake(5.0, WALL)
        store.progress(1.0, {"b": Counts(ready=1)})
        assert store.changed
        if how == "rollback":
            store.rollback()
        else:
            store.close()
            store = opened()
        assert not store.changed
        assert [store.look(seq) for seq in range(1, 7)] == before
        assert store.load().counts == {}
        assert store.load().next_seq == 6
        assert store.next_times() == (5.0, None)
        assert take(store) == [3]
        store.close()

    def test_a_commit_leaves_nothing_to_commit(self, store: Store) -> None:
        seen = [store.changed]
        store.commit()
        store.put([item(1)])
        seen.append(store.changed)
        store.commit()
        assert [*seen, store.changed] == [False, True, False]

    def test_an_id_of_an_origin_is_stored_once_whatever_became_of_it(self, opened: Open) -> None:
        store = opened()
        assert store.put([item(1, "x"), item(2, "y"), item(3, "x")]) == [True, True, False]
        assert store.put([item(4, "x", origin="bob"), item(5, "y", address="b")]) == [True, False]
        assert take(store) == [1, 2, 4]
        store.finish([1], WALL)
        store.bury(2, 1, WALL, "broken")
        store.purge([2], WALL)
        store.commit()
        store.close()
        store = opened()
        assert store.put([item(6, "x"), item(7, "y"), item(8, "x", origin="bob")]) == [False, False, False]
        assert store.knows("alice", "x")
        assert not store.knows("alice", "z")
        assert store.load().next_seq >= 5
        store.close()

    def test_the_oldest_come_first_and_those_of_other_addresses_not_at_all(self, store: Store) -> None:
        store.put([item(n, address="ab"[n % 2]) for n in range(1, 8)])
        taken, more = store.take("a", "bob", 2, MUCH, WALL)
        assert ([t.seq for t in taken], more) == ([2, 4], True)
        assert (take(store), take(store, address="b"), take(store)) == ([6], [1, 3, 5, 7], [])

    def test_bytes_limit_what_is_taken_but_never_to_nothing(self, store: Store) -> None:
        store.put([item(n, body=b"x" * 100) for n in range(1, 6)])
        assert [len(store.take("a", "bob", 10, room, WALL)[0]) for room in (250, 10, 1000)] == [2, 1, 2]

    def test_what_is_not_due_has_not_begun_or_is_over_is_not_taken(self, store: Store) -> None:
        store.put([item(1, due=5.0), item(2, not_before=WALL + 5), item(3, due=6.0, not_before=WALL + 6), item(4),
                   item(5, expires_at=WALL + 2)])  # fmt: skip
        assert store.next_times() == (5.0, WALL + 2)
        assert take(store, 1) == [4]
        assert take(store, wall=WALL + 2) == []
        assert store.wake(4.9, WALL + 4.9) == {}
        assert store.wake(5.0, WALL + 5) == {"a": 2}
        assert take(store, wall=WALL + 2) == [1, 2]
        store.wake(6.0, WALL)
        assert take(store, wall=WALL + 2) == []
        store.wake(6.0, WALL + 6)
        assert take(store, wall=WALL + 2) == [3]
        assert store.next_times() == (None, WALL + 2)

    def test_what_is_over_expires_unless_it_is_in_hand(self, store: Store) -> None:
        store.put([item(n, expires_at=WALL + n, body=b"x" * n) for n in range(1, 5)])
        store.put([item(5, due=9.0, expires_at=WALL + 1)])
        assert take(store, 1) == [1]
        assert sorted(store.expire(WALL + 3, 10)) == [("a", 1), ("a", 2), ("a", 3)]
        over = State.EXPIRED
        assert [state_of(store, n) for n in range(1, 6)] == [State.LEASED, over, over, State.READY, over]
        assert store.next_times() == (None, WALL + 4)
        store.give_back([Given(1, 1, 1, None, "")], WALL)
        assert store.expire(WALL + 3, 10) == [("a", 1)]
        assert store.expire(WALL + 3, 10) == []

    def test_a_lease_moves_the_attempt_and_the_fence_on(self, store: Store) -> None:
        store.put([item(1)])
        for n in range(1, 4):
            ((taken,), _) = store.take("a", f"holder {n}", 9, MUCH, WALL)
            assert (taken.attempt, taken.fence) == (n, n)
            standing = store.find(1)
            assert standing is not None
            assert (standing.state, standing.fence, standing.holder) == (State.LEASED, n, f"holder {n}")
            store.give_back([Given(1, n, n, None, "again")], WALL)
            assert state_of(store, 1) is State.READY
        store.take("a", "bob", 9, MUCH, WALL)
        store.give_back([Given(1, 9, 0, 5.0, "later")], WALL + 1)
        detail = store.look(1)
        assert detail is not None
        assert (detail.attempt, detail.due, detail.reason, detail.holder) == (0, 5.0, "later", "bob")
        assert take(store) == []
        store.wake(5.0, WALL)
        ((taken,), _) = store.take("a", "bob", 9, MUCH, WALL)
        assert (taken.attempt, taken.fence) == (1, 10)

    def test_the_end_is_on_record_without_the_body(self, store: Store) -> None:
        store.put([item(1, body=b"abc"), item(2)])
        take(store)
        store.finish([1], WALL + 1)
        store.bury(2, 7, WALL + 2, "broken")
        done, dead = store.look(1), store.look(2)
        assert done is not None
        assert dead is not None
        assert (done.state, done.attempt, done.holder, done.size, done.body, done.changed_at) == (
            State.DONE, 1, "bob", 3, b"", WALL + 1,
        )  # fmt: skip
        assert (dead.state, dead.holder, dead.body, dead.reason) == (State.DEAD, "bob", b"x", "broken")
        assert [standing.fence for n in (1, 2) if (standing := store.find(n))] == [1, 7]
        assert store.load().held == []

    def test_of_a_key_one_is_leased_at_a_time_in_order(self, store: Store) -> None:
        store.put([item(1, key="k"), item(2, key="k"), item(3, key="l"), item(4), item(5, key="k", address="b")])
        assert take(store) == [1, 3, 4]
        assert take(store, address="b") == [5]
        store.give_back([Given(1, 1, 1, 5.0, "")], WALL)
        assert take(store) == []
        store.wake(5.0, WALL)
        assert take(store) == [1]
        store.finish([1, 3], WALL)
        assert take(store) == [2]

    @pytest.mark.parametrize("end", ["bury", "purge", "expire"])
    def test_every_end_lets_the_next_of_its_key_go(self, store: Store, end: str) -> None:
        store.put([item(1, key="k", expires_at=WALL + 1), item(2, key="k"), item(3, key="k")])
        if end == "bury":
            take(store)
            store.bury(1, 1, WALL, "")
        elif end == "purge":
            store.purge([1], WALL)
        else:
            store.expire(WALL + 1, 10)
        assert take(store) == [2]

    def test_a_requeued_elder_waits_for_the_younger_that_is_in_hand(self, store: Store) -> None:
        store.put([item(n, key="k") for n in range(1, 5)])
        for seq in (1, 2):
            assert take(store) == [seq]
            store.bury(seq, 1, WALL, "broken")
        assert take(store) == [3]
        assert [r.seq for r in store.requeue([1, 2], WALL)] == [1, 2]
        assert take(store) == []
        store.purge([1], WALL)
        assert take(store) == []
        store.finish([3], WALL)
        assert take(store) == [2]
        assert take(store) == []

    def test_requeued_elders_go_before_what_was_ready(self, store: Store) -> None:
        store.put([item(n, key="k") for n in range(1, 4)])
        for seq in (1, 2):
            take(store)
            store.bury(seq, 1, WALL, "broken")
        store.requeue([1, 2], WALL)
        for seq in (1, 2, 3):
            assert take(store) == [seq]
            store.finish([seq], WALL)

    def test_only_dead_letters_are_requeued_with_all_attempts_and_a_new_fence(self, store: Store) -> None:
        store.put([item(1, expires_at=WALL + 5), item(2, expires_at=WALL + 50), item(3), item(4)])
        assert take(store, 3) == [1, 2, 3]
        store.bury(1, 1, WALL, "broken")
        store.bury(2, 1, WALL, "broken")
        requeued = store.requeue([1, 2, 2, 3, 4, 5], WALL + 9)
        assert [(r.seq, r.address, r.size) for r in requeued] == [(1, "a", 1), (2, "a", 1)]
        details = [detail for n in (1, 2) if (detail := store.look(n))]
        assert [(d.state, d.attempt, d.expires_at, d.body) for d in details] == [
            (State.READY, 0, None, b"x"), (State.READY, 0, WALL + 50, b"x"),
        ]  # fmt: skip
        assert [line.what for d in details for line in d.history] == ["requeued"] * 2
        assert [t.fence for t in store.take("a", "bob", 2, MUCH, WALL + 9)[0]] == [3, 3]

    def test_what_waits_or_is_dead_can_be_purged_and_nothing_else(self, store: Store) -> None:
        store.put([item(1), item(2), item(3), item(4, due=5.0), item(5, not_before=WALL + 5), item(6)])
        assert take(store, 3) == [1, 2, 3]
        store.finish([1], WALL)
        store.bury(2, 1, WALL, "broken")
        purged = store.purge([1, 2, 2, 3, 4, 5, 9], WALL + 1)
        assert [(p.seq, p.was) for p in purged] == [(2, State.DEAD), (4, State.READY), (5, State.READY)]
        assert [b.seq for b in store.browse("*", State.PURGED, 0, 10)] == [2, 4, 5]
        assert store.next_times() == (None, None)
        assert take(store) == [6]
        detail = store.look(2)
        assert detail is not None
        assert (detail.body, [line.what for line in detail.history]) == (b"", ["purged"])

    def test_what_has_ended_is_forgotten_first_ended_first_and_nothing_else(self, store: Store) -> None:
        store.put([item(n) for n in range(1, 8)])
        assert store.remembered_since() is None
        assert take(store, 5) == [1, 2, 3, 4, 5]
        for wall, seq in enumerate((3, 1, 2)):
            store.finish([seq], WALL + wall)
        store.bury(4, 1, WALL, "broken")
        store.purge([6], WALL + 3)
        assert store.remembered_since() == WALL
        assert store.forget(WALL + 2, 1) == 1
        assert [state_of(store, n) for n in (1, 2, 3)] == [State.DONE, State.DONE, None]
        assert store.remembered_since() == WALL + 1
        assert store.forget(WALL + 2, 10) == 1
        assert store.forget(WALL + 99, 10) == 2
        assert [state_of(store, n) for n in (1, 2, 3, 6)] == [None] * 4
        assert [state_of(store, n) for n in (4, 5, 7)] == [State.DEAD, State.LEASED, State.READY]
        assert store.put([item(8, "3"), item(9, "4")]) == [True, False]

    @pytest.mark.parametrize("many", [3, 40])
    @pytest.mark.parametrize(
        "names",
        [
            ["1 2", " ", '"', "\\", "\\u0000", "a'b", "{}", "[1]", "0x10", "-1", "null", "%s", "?1", "~"],
            ["a\0b", "a\0c", "a", "\0", "\n", "\x7f", "é", "e\u0301", "\U0001f600", "\u2028"],
        ],
        ids=["printable", "any"],
    )  # fmt: skip
    def test_an_id_may_be_any_text_and_is_given_back_as_it_was(
        self, store: Store, names: list[str], many: int
    ) -> None:
        names = [*names, *(f"x{n}" for n in range(many - len(names)))]
        news = [item(n, name, body=b"x" * n) for n, name in enumerate(names, start=1)]
        assert store.put(news) == [True] * len(news)
        again = [item(100 + n, name) for n, name in enumerate([*names, "new"])]
        assert store.put(again) == [False] * len(names) + [True]
        store.commit()
        assert [(b.seq, b.id, b.size) for b in store.browse("a", State.READY, 0, 50)] == [
            *((new.seq, new.id, len(new.body)) for new in news), (100 + len(names), "new", 1),
        ]  # fmt: skip
        taken, _ = store.take("a", "bob", 100, MUCH, WALL)
        assert [(t.seq, t.id, t.body) for t in taken[:-1]] == [(new.seq, new.id, new.body) for new in news]
        assert store.knows("alice", names[0])

    def test_the_number_of_what_was_forgotten_is_not_given_again(self, opened: Open) -> None:
        store = opened()
        store.put([item(n) for n in range(1, 4)])
        assert take(store) == [1, 2, 3]
        store.finish([1, 2, 3], WALL)
        store.progress(1.0, {"a": Counts(done_total=3)})
        assert store.forget(WALL + 1, 10) == 3
        store.commit()
        store.close()
        store = opened()
        assert (store.load().next_seq, store.load().forgotten) == (4, 3)
        store.close()

    def test_what_is_taken_at_once_and_what_waits_go_in_order(self, store: Store) -> None:
        store.put([item(1), item(2, key="k")])
        store.put([item(n, address="ab"[n % 2]) for n in range(3, 9)])
        assert take(store, 3) == [1, 2, 4]
        store.put([item(9), item(10, due=5.0)])
        store.put([item(11), item(12, body=b"x" * 100), item(13)])
        assert take(store, 1) == [6]
        store.give_back([Given(1, 2, 1, None, "")], WALL)
        store.purge([8, 12], WALL)
        store.commit()
        assert (take(store), take(store), take(store, address="b")) == ([1, 9, 11, 13], [], [3, 5, 7])

    def test_bytes_limit_what_is_taken_of_what_waited_and_what_has_just_come(self, store: Store) -> None:
        store.put([item(1, body=b"x" * 100)])
        store.commit()
        store.put([item(n, body=b"x" * 100) for n in range(2, 6)])
        assert [len(store.take("a", "bob", 10, room, WALL)[0]) for room in (250, 10, 1000)] == [2, 1, 2]

    def test_browsing_pages_through_a_state_by_number(self, store: Store) -> None:
        store.put([item(n, address=("x.a", "x.b", "lan/main/x.a")[n % 3]) for n in range(1, 10)])
        assert [b.seq for b in store.browse("x.*", State.READY, 0, 3)] == [1, 3, 4]
        assert [b.seq for b in store.browse("x.*", State.READY, 4, 9)] == [6, 7, 9]
        assert [b.seq for b in store.browse("*/*/x.a", State.READY, 0, 9)] == [2, 5, 8]
        assert [b.seq for b in store.browse("x.a", State.READY, 3, 9)] == [6, 9]
        assert take(store, 1, "x.a") == [3]
        assert [(b.seq, b.state, b.holder) for b in store.browse("*", State.LEASED, 0, 9)] == [(3, State.LEASED, "bob")]
        assert [b.seq for b in store.browse("x.a", State.READY, 0, 9)] == [6, 9]

    def test_the_newest_are_seen_whatever_became_of_them(self, store: Store) -> None:
        store.put([item(n, address="x.a" if n < 4 else "lan/main/y") for n in range(1, 6)])
        assert take(store, 1, "x.a") == [1]
        assert [(b.seq, b.state) for b in store.recent(2, "x.*")] == [(3, State.READY), (2, State.READY)]
        assert [b.seq for b in store.recent(9, without="y")] == [3, 2, 1]
        assert [(b.seq, b.attempt, b.holder) for b in store.recent(9)][-1] == (1, 1, "bob")

    def test_nothing_is_known_of_what_is_not_there(self, store: Store) -> None:
        assert store.find(1) is None
        assert store.look(1) is None
        assert store.next_times() == (None, None)
        assert store.recent(10) == []

"""What an operator asks of the broker: done for whom it is permitted, within a turn, and never to what is in hand."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.contracts.access import Rights
from appliance.contracts.letters import (
    BackedUp,
    Browse,
    Changed,
    Checked,
    Compact,
    Compacted,
    Letter,
    Peek,
    Purge,
    Requeue,
    Tend,
)
from appliance.contracts.member import Ping
from appliance.contracts.traffic import Depth, Messages, QueueStats, RecentQuery
from appliance.queue import calls, wire
from appliance.queue.errors import StoreFull
from appliance.queue.logged_store import LoggedStore, open_store
from appliance.queue.sqlite_still import SqliteStill
from tests.unit.queue.damage import damaged
from tests.unit.queue.desk import Desk

T = TypeVar("T", bound=msgspec.Struct)
SOON_S = 30.0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    for name in ("alice", "bob", "nobody"):
        desk.hello(name)
    yield desk
    desk.engine.close()
    desk.store.close()


def test_a_repeat_is_counted_by_nobody_who_asks_in_the_same_turn(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    again = wire.to_broker(wire.Publish(1, (wire.Item("a", "1"), wire.Item("a", "2"))), [b"", b""])
    desk.engine.handle(b"alice", "alice", again)
    stats = ask(desk, "queue.stats", None, QueueStats)
    assert [depth.published_total for depth in stats.depths] == [2]


def answer(desk: Desk, who: str, call: str, body: bytes) -> tuple[wire.Reply, bytes]:
    """Let `who` call, and return the broker's answer."""
    desk.send(who, wire.Call(9, call, 5.0), body)
    return await_reply(desk, who)


def await_reply(desk: Desk, who: str) -> tuple[wire.Reply, bytes]:
    """Run turns until the broker has answered a call."""
    end = time.monotonic() + SOON_S
    while True:
        inbox = desk.inboxes.get(who, [])
        for index, (header, bodies) in enumerate(inbox):
            if isinstance(header, wire.Reply):
                del inbox[index]
                return header, bodies[0]
        assert time.monotonic() < end, "it was not answered"
        time.sleep(0.001)
        desk.turn()


def ask(desk: Desk, call: str, request: msgspec.Struct | None, kind: type[T], who: str = "bob") -> T:
    body = b"" if request is None else msgspec.msgpack.encode(request)
    reply, found = answer(desk, who, call, body)
    assert reply.fault is None, reply.fault
    return msgspec.msgpack.decode(found, type=kind)


def refusal(desk: Desk, call: str, request: msgspec.Struct, who: str) -> str:
    reply, _ = answer(desk, who, call, msgspec.msgpack.encode(request))
    assert reply.fault is not None, "it was not refused"
    return reply.fault.code


def depth(desk: Desk, address: str) -> Depth:
    stats = ask(desk, "queue.stats", None, QueueStats)
    return next(d for d in stats.depths if d.address == address)


def kill(desk: Desk, *ids: str, address: str = "a", key: str | None = None, body: bytes = b"{}") -> None:
    """Publish messages and let bob reject each."""
    for name in ids:
        assert desk.publish("alice", wire.Item(address, name, key=key), body) == wire.STORED
    desk.consume("bob", address, credit=len(ids))
    for handed in desk.deliveries("bob"):
        desk.settle("bob", handed.token, wire.REJECT)
    desk.send("bob", wire.Cancel(5))


def browse(desk: Desk, address: str = "*", **query: object) -> list[str]:
    request = msgspec.convert({"address": address, **query}, Browse)
    return [m.id for m in ask(desk, "queue.browse", request, Messages).messages]


def test_dead_letters_are_browsed_page_by_page(desk: Desk) -> None:
    kill(desk, "1", "2", "3")
    kill(desk, "4", address="b.c")
    assert browse(desk) == ["1", "2", "3", "4"]
    assert browse(desk, "b.*") == ["4"]
    first = ask(desk, "queue.browse", Browse(limit=2), Messages).messages
    assert [m.id for m in first] == ["1", "2"]
    assert {m.state for m in first} == {"dead"}
    assert browse(desk, after=first[-1].seq) == ["3", "4"]
    assert browse(desk, "lan/main/a") == ["1", "2", "3"], "the full form of an address means the same"
    assert refusal(desk, "queue.browse", Browse(address="other/place/*"), "bob") == "not-permitted"


def test_a_message_is_looked_into_with_its_history_and_as_much_of_its_body_as_is_wanted(desk: Desk) -> None:
    kill(desk, "1", key="k", body=b'{"total": 3}')
    (message,) = ask(desk, "queue.browse", Browse(), Messages).messages
    letter = ask(desk, "queue.peek", Peek(seq=message.seq), Letter)
    assert letter.message == message
    assert (letter.kind, letter.body, letter.key) == ("json", b'{"total": 3}', "k")
    assert [(line.what, line.reason, line.holder) for line in letter.history] == [("rejected", "why", "bob")]
    assert ask(desk, "queue.peek", Peek(seq=message.seq, limit=5), Letter).body == b'{"tot'
    assert refusal(desk, "queue.peek", Peek(seq=message.seq + 1000), "bob") == "not-found"


def test_a_delayed_message_says_how_long_it_waits(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1", delay_s=60.0))
    desk.clock.advance(20.0)
    (message,) = ask(desk, "queue.browse", Browse(state="ready"), Messages).messages
    assert ask(desk, "queue.peek", Peek(seq=message.seq), Letter).waits_s == pytest.approx(40.0)


def test_a_requeued_dead_letter_is_delivered_again_with_all_its_attempts(desk: Desk) -> None:
    kill(desk, "1", "2")
    seqs = tuple(m.seq for m in ask(desk, "queue.browse", Browse(), Messages).messages)
    assert ask(desk, "queue.requeue", Requeue(seqs=seqs[:1]), Changed) == Changed(count=1, last=seqs[0])
    assert ask(desk, "queue.requeue", Requeue(seqs=seqs[:1]), Changed).count == 0, "it is not dead any more"
    assert (depth(desk, "a").ready, depth(desk, "a").dead) == (1, 1)
    desk.consume("bob", "a", credit=5)
    (handed,) = desk.deliveries("bob")
    assert (handed.id, handed.attempt) == ("1", 1)
    assert desk.settle("bob", handed.token) == wire.STORED
    after = depth(desk, "a")
    assert (after.ready, after.leased, after.dead, after.done_total, after.dead_total) == (0, 0, 1, 1, 2)
    assert after.published_total == 2


def test_a_consumer_that_waits_gets_a_requeued_message_in_the_same_turn(desk: Desk) -> None:
    kill(desk, "1")
    desk.consume("alice", "a")
    desk.send("bob", wire.Call(9, "queue.requeue", 5.0), msgspec.msgpack.encode(Requeue(address="a")))
    assert [handed.id for handed in desk.deliveries("alice")] == ["1"]


def test_all_dead_letters_of_an_address_are_requeued_in_slices_none_of_them_twice(desk: Desk) -> None:
    kill(desk, "1", "2", "3")
    kill(desk, "other", address="b")
    first = ask(desk, "queue.requeue", Requeue(address="a", limit=2), Changed)
    assert (first.count, first.more) == (2, True)
    desk.consume("alice", "a", credit=5)
    for handed in desk.deliveries("alice"):
        desk.settle("alice", handed.token, wire.REJECT)  # dead again, while the operator asks for the rest
    rest = ask(desk, "queue.requeue", Requeue(address="a", limit=2, after=first.last), Changed)
    assert (rest.count, rest.more) == (1, False)
    assert browse(desk) == ["1", "2", "other"]


def test_a_requeued_elder_waits_for_the_younger_of_its_key_that_is_in_hand(desk: Desk) -> None:
    kill(desk, "1", key="k")
    desk.publish("alice", wire.Item("a", "2", key="k"))
    desk.consume("bob", "a", credit=5)
    (younger,) = desk.deliveries("bob")
    assert younger.id == "2"
    ask(desk, "queue.requeue", Requeue(address="a"), Changed)
    assert desk.deliveries("bob") == []
    desk.settle("bob", younger.token)
    assert [handed.id for handed in desk.deliveries("bob")] == ["1"]


def test_a_requeued_message_still_expires(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1", expires_s=100.0))
    desk.consume("bob", "a")
    desk.settle("bob", desk.deliveries("bob")[0].token, wire.REJECT)
    desk.send("bob", wire.Cancel(5))
    ask(desk, "queue.requeue", Requeue(address="a"), Changed)
    desk.clock.advance(101.0)
    desk.turn()
    assert (depth(desk, "a").ready, depth(desk, "a").expired_total) == (0, 1)


def test_a_purge_drops_the_dead_or_the_waiting_and_never_what_is_in_hand(desk: Desk) -> None:
    kill(desk, "1")
    for name in ("2", "3"):
        desk.publish("alice", wire.Item("a", name), b"12345")
    desk.consume("alice", "a", credit=1)
    assert ask(desk, "queue.purge", Purge(address="a"), Changed).count == 1
    assert ask(desk, "queue.purge", Purge(address="a", state="ready"), Changed).count == 1
    left = depth(desk, "a")
    assert (left.ready, left.leased, left.dead, left.purged_total, left.bytes) == (0, 1, 0, 2, 5)
    (held,) = ask(desk, "queue.browse", Browse(state="leased"), Messages).messages
    assert ask(desk, "queue.purge", Purge(seqs=(held.seq,), state="ready"), Changed).count == 0
    assert desk.publish("alice", wire.Item("a", "1")) == wire.DUPLICATE, "its id is remembered"


def test_an_elder_that_is_purged_no_longer_holds_up_those_of_its_key(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1", delay_s=3600.0, key="k"))
    desk.publish("alice", wire.Item("a", "2", key="k"))
    desk.consume("bob", "a")
    (elder,) = (m for m in ask(desk, "queue.browse", Browse(state="ready"), Messages).messages if m.id == "1")
    assert desk.deliveries("bob") == []
    ask(desk, "queue.purge", Purge(seqs=(elder.seq,), state="ready"), Changed)
    assert [handed.id for handed in desk.deliveries("bob")] == ["2"]


def test_what_was_changed_is_on_disk_when_it_is_answered(desk: Desk) -> None:
    kill(desk, "1", "2", "3")
    (first, second, _) = ask(desk, "queue.browse", Browse(), Messages).messages
    ask(desk, "queue.requeue", Requeue(seqs=(first.seq,)), Changed)
    ask(desk, "queue.purge", Purge(seqs=(second.seq,)), Changed)
    before = depth(desk, "a")
    desk.restart()
    desk.hello("bob")
    after = depth(desk, "a")
    assert (after.ready, after.dead, after.purged_total) == (1, 1, 1)
    assert msgspec.structs.replace(after, delivered_total=before.delivered_total) == before
    assert ask(desk, "queue.check", None, Checked).problems == ()


CLERK = Rights(call=("queue.*",), administer=("a", "b.*"))


@pytest.mark.parametrize(("call", "kind"), [("queue.requeue", Requeue), ("queue.purge", Purge)])
def test_a_key_changes_only_messages_at_addresses_that_it_administers(
    desk: Desk, call: str, kind: type[Requeue] | type[Purge]
) -> None:
    desk.grant("clerk", CLERK)
    kill(desk, "1")
    kill(desk, "2", address="secret")
    mine, other = ask(desk, "queue.browse", Browse(), Messages).messages
    for request in (kind(address="secret"), kind(address="*"), kind(seqs=(mine.seq, other.seq))):
        assert refusal(desk, call, request, "clerk") == "not-permitted"
    assert browse(desk) == ["1", "2"], "a refusal changes nothing"
    assert ask(desk, call, kind(address="a"), Changed, "clerk").count == 1
    assert browse(desk) == ["2"]


def test_a_key_looks_only_at_messages_at_addresses_that_it_administers(desk: Desk) -> None:
    desk.grant("clerk", CLERK)
    kill(desk, "1")
    kill(desk, "2", address="secret")
    mine, other = ask(desk, "queue.browse", Browse(), Messages).messages
    assert [m.id for m in ask(desk, "queue.browse", Browse(address="a"), Messages, "clerk").messages] == ["1"]
    assert refusal(desk, "queue.browse", Browse(), "clerk") == "not-permitted"
    assert ask(desk, "queue.peek", Peek(seq=mine.seq), Letter, "clerk").message == mine
    assert refusal(desk, "queue.peek", Peek(seq=other.seq), "clerk") == "not-permitted"


@pytest.mark.parametrize(
    ("call", "request_", "kind"),
    [("queue.backup", Tend(), BackedUp), ("queue.check", Tend(), Checked), ("queue.compact", Compact(), Compacted)],
)
def test_the_store_as_a_whole_is_tended_only_by_who_administers_all_of_it(
    desk: Desk, call: str, request_: msgspec.Struct, kind: type[msgspec.Struct]
) -> None:
    desk.grant("clerk", CLERK)
    assert refusal(desk, call, request_, "clerk") == "not-permitted"
    ask(desk, call, request_, kind)


@pytest.mark.parametrize("call", ["stats", "browse", "peek", "requeue", "purge", "backup", "check", "compact"])
def test_who_may_not_call_is_refused_whatever_it_administers(desk: Desk, call: str) -> None:
    desk.grant("mute", Rights(administer=("*",)))
    reply, _ = answer(desk, "mute", f"queue.{call}", b"")
    assert reply.fault is not None
    assert reply.fault.code == "not-permitted"


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        ("queue.requeue", {}),
        ("queue.requeue", {"seqs": [1], "address": "a"}),
        ("queue.purge", {"address": "a", "state": "leased"}),
        ("queue.purge", {"address": "a", "limit": 100_000}),
        ("queue.peek", {"seq": 1, "who": "admin\nqueue: all is well"}),
        ("queue.browse", {"address": "a", "colour": "red"}),
    ],
)
def test_what_does_not_fit_is_refused(desk: Desk, call: str, request_: dict[str, object]) -> None:
    reply, _ = answer(desk, "bob", call, msgspec.msgpack.encode(request_))
    assert reply.fault is not None
    assert (reply.fault.code, reply.fault.status) == ("invalid-input", 400)


def test_a_bad_pattern_is_refused_as_such(desk: Desk) -> None:
    assert refusal(desk, "queue.browse", Browse(address="a b"), "bob") == "bad-address"


def test_each_act_is_in_the_journal_with_who_what_and_how_many(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    kill(desk, "1", "2")
    (first, _) = ask(desk, "queue.browse", Browse(), Messages).messages
    with caplog.at_level(logging.INFO, logger="appliance.queue.operations"):
        ask(desk, "queue.peek", Peek(seq=first.seq, who="eve"), Letter)
        ask(desk, "queue.requeue", Requeue(address="a", limit=1), Changed)
        ask(desk, "queue.purge", Purge(address="a", who="eve"), Changed)
        ask(desk, "queue.check", Tend(who="eve"), Checked)
    assert [record.getMessage() for record in caplog.records] == [
        f"eve at bob looked into message {first.seq} at a",
        "bob requeued 1 message(s) (a)",
        "eve at bob purged 1 message(s) (a)",
        "eve at bob checked the store: sound",
    ]


def test_a_backup_is_a_store_that_is_sound_and_holds_what_was_there(desk: Desk) -> None:
    kill(desk, "1")
    desk.publish("alice", wire.Item("a", "2"), b"two")
    made = ask(desk, "queue.backup", None, BackedUp)
    desk.publish("alice", wire.Item("a", "3"))
    assert made.size == Path(made.path).stat().st_size
    copy = open_store(Path(made.path))
    counts = copy.load().counts["a"]
    assert (counts.ready, counts.dead) == (1, 1)
    taken, _ = copy.take("a", "x", 5, 2**20, desk.clock.wall())
    assert [(t.id, t.body) for t in taken] == [("2", b"two")]
    copy.close()


def test_while_the_store_is_checked_the_queue_goes_on_and_a_second_look_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, let_go = threading.Event(), threading.Event()
    real = SqliteStill.check

    def slow(still: SqliteStill) -> list[str]:
        begun.set()
        assert let_go.wait(SOON_S)
        return real(still)

    monkeypatch.setattr(SqliteStill, "check", slow)
    desk.send("alice", wire.Call(9, "queue.check", 5.0), b"")
    assert begun.wait(SOON_S)
    assert refusal(desk, "queue.backup", Tend(), "bob") == "errand-running"
    kill(desk, "1")
    assert not any(isinstance(header, wire.Reply) for header, _ in desk.heard("alice"))
    let_go.set()
    _, body = await_reply(desk, "alice")
    assert msgspec.msgpack.decode(body, type=Checked).problems == ()


def test_a_backup_for_which_there_is_no_room_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path, min_free_bytes=2**62)
    desk.hello("bob")
    assert refusal(desk, "queue.backup", Tend(), "bob") == "copy-failed"
    assert not (tmp_path / "backup.sqlite").exists()
    desk.engine.close()
    desk.store.close()


@pytest.mark.parametrize(("call", "method"), [("queue.compact", "compact"), ("queue.check", "still")])
def test_a_disk_that_is_full_after_the_commit_is_told_to_who_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, call: str, method: str
) -> None:
    def full(*_: object) -> None:
        raise StoreFull("The disk has no room for the queue.")

    monkeypatch.setattr(LoggedStore, method, full)
    reply, _ = answer(desk, "bob", call, b"")
    assert reply.fault is not None
    assert (reply.fault.code, reply.fault.status) == ("unavailable", 503)
    assert desk.publish("alice", wire.Item("a", "1")) == wire.STORED, "nobody else hears of it"


def test_unused_pages_go_back_to_the_disk(desk: Desk) -> None:
    kill(desk, *(str(n) for n in range(20)), body=b"x" * 20_000)
    ask(desk, "queue.purge", Purge(address="a"), Changed)
    assert ask(desk, "queue.compact", Compact(pages=10), Compacted).pages == 10
    assert ask(desk, "queue.compact", Compact(), Compacted).pages > 10
    assert ask(desk, "queue.check", None, Checked).problems == ()


def test_a_flood_of_calls_to_the_broker_itself_is_spread_over_turns(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.heard("bob")
    monkeypatch.setattr(calls, "OWN_S", 0.0)
    desk.engine.handle(b"bob", "bob", wire.to_broker(wire.Call(1, "queue.stats", 5.0), [b""]))
    desk.turn()
    assert desk.heard("bob") == []
    assert desk.engine.next_time() == 0.0, "what is left over is done at once"
    monkeypatch.setattr(calls, "OWN_S", 10.0)
    desk.turn()
    assert len(desk.heard("bob")) == 1


def test_the_broker_counts_its_commits_and_how_long_they_took(desk: Desk) -> None:
    before = ask(desk, "queue.stats", None, QueueStats)
    desk.publish("alice", wire.Item("a", "1"))
    desk.turn()
    after = ask(desk, "queue.stats", None, QueueStats)
    assert after.commits == before.commits + 1, "a turn in which nothing was stored does not sync"
    assert after.turns >= before.turns + 2
    assert after.commit_s > before.commit_s
    assert sum(after.commits_within) <= after.commits
    assert (after.sessions, after.clients) == (3, ("alice", "bob", "nobody"))


@pytest.mark.parametrize("pattern", ["a" * 60_000, "*a" * 30_000, "[", "a b", "a\0", "*/*/*/*"])
def test_a_pattern_that_is_none_is_refused_for_the_newest_too(desk: Desk, pattern: str) -> None:
    for query in (RecentQuery(only=pattern), RecentQuery(without=pattern)):
        assert refusal(desk, "queue.recent", query, "bob") == "bad-address"


def test_who_asks_writes_no_lines_of_his_own_into_the_journal(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    for who in ("eve\n", "eve\nbob", "\x1b", "x" * 65):
        assert refusal(desk, "queue.peek", Peek(seq=1, who=who), "bob") == "invalid-input"


def test_the_newest_are_found_by_the_full_address_too(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a.b", "1"))
    for only in ("a.b", "lan/main/a.b", "lan/main/*"):
        assert len(ask(desk, "queue.recent", RecentQuery(only=only), Messages).messages) == 1
    assert ask(desk, "queue.recent", RecentQuery(without="lan/main/a.*"), Messages).messages == ()


REQUESTS: dict[str, msgspec.Struct] = {
    "queue.ping": Ping(sent_at=1.0),
    "queue.recent": RecentQuery(limit=5, only="a.*", without="b"),
    "queue.browse": Browse(address="a.*", state="dead", after=3, limit=9),
    "queue.peek": Peek(seq=1, limit=3, who="eve"),
    "queue.requeue": Requeue(seqs=(1, 2), who="eve"),
    "queue.purge": Purge(address="a.*", after=1, limit=7, who="eve", state="ready"),
    "queue.compact": Compact(pages=3, who="eve"),
}


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(sorted(REQUESTS)))
def test_a_damaged_request_is_answered(desk: Desk, data: st.DataObject, call: str) -> None:
    reply, body = answer(desk, "bob", call, data.draw(damaged(msgspec.msgpack.encode(REQUESTS[call]))))
    assert (reply.fault is None) == bool(body)

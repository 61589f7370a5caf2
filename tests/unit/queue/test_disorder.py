"""Valid messages in any order, from clients with and without rights: answers or errors, never the end of the broker."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.queue import wire
from tests.unit.queue.desk import Desk, temporary_directory

SMALL = st.integers(0, 3)
TOKEN = st.tuples(st.integers(0, 6), st.integers(0, 3))
NAME = st.sampled_from(
    ["a", "b", "lan/main/a", "lan2/east/a", "*", "a.*", "bad name", "/", "notice.mail", "queue.stats"]
)
WAIT = st.sampled_from([0.0, 0.5, 3.0])
MAYBE = st.none
ITEM = st.builds(
    wire.Item,
    NAME,
    st.sampled_from(["1", "2", "3", "4"]),
    WAIT,
    MAYBE() | st.just(1e9) | st.just(1.9e9),
    MAYBE() | WAIT,
    MAYBE() | st.integers(1, 2),
    MAYBE() | st.just("k"),
)
ITEMS = st.lists(ITEM, min_size=1, max_size=4).map(tuple)
OUTCOME = st.builds(wire.Outcome, TOKEN, st.integers(0, 3), WAIT, st.just("why"))
FAULT = st.builds(wire.Fault, st.just("not-found"), st.just("No."))
HEADER = st.one_of(
    st.just(wire.Hello("x")),
    st.builds(wire.Publish, SMALL, ITEMS),
    st.builds(wire.Publish, SMALL, ITEMS),
    st.builds(wire.Consume, SMALL, SMALL, NAME, st.integers(1, 3), st.lists(TOKEN, max_size=3).map(tuple)),
    st.builds(wire.Subscribe, SMALL, SMALL, NAME),
    st.builds(wire.Cancel, SMALL),
    st.builds(wire.Settle, SMALL, st.lists(OUTCOME, min_size=1, max_size=4).map(tuple)),
    st.builds(wire.Move, SMALL, TOKEN, ITEM),
    st.builds(wire.Emit, SMALL, NAME, st.booleans(), st.just(1e9)),
    st.builds(wire.Call, SMALL, NAME, WAIT),
    st.builds(wire.Serve, SMALL, NAME),
    st.builds(wire.Answer, SMALL, MAYBE() | FAULT),
    st.builds(wire.Heartbeat, st.lists(TOKEN, max_size=3).map(tuple)),
    st.just(wire.Bye()),
)
STEP = st.tuples(st.sampled_from(["alice", "bob", "nobody", "unknown"]), HEADER, st.sampled_from([0.0, 0.0, 0.0, 1.0]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(STEP, max_size=60))
def test_valid_messages_in_any_order_never_end_the_broker(steps: list[tuple[str, wire.Header, float]]) -> None:
    with temporary_directory() as folder:
        desk = Desk(Path(folder), lease_s=2.0, heartbeat_s=0.5)
        for name in ("alice", "bob", "nobody"):
            desk.hello(name)
        for number, (name, header, seconds) in enumerate(steps):
            desk.send(name, header, *[b"x"] * header.bodies)
            desk.clock.advance(seconds)
            if number % 20 == 19:
                desk.restart()
                desk.hello("alice")
        assert desk.heard("unknown") == []
        desk.clock.advance(10.0)
        desk.turn()
        ledger = desk.engine._work.ledger
        desk.restart()
        rebuilt = desk.engine._work.ledger
        assert rebuilt.counts == {address: ledger.counts[address] for address in rebuilt.counts}
        assert rebuilt.bytes == ledger.bytes
        desk.store.close()


def test_a_bye_that_is_read_after_its_connection_has_gone_still_gives_back(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for name in ("alice", "bob"):
        desk.hello(name)
    desk.publish("bob", wire.Item("a", "1"))
    desk.consume("alice", "a")
    assert len(desk.deliveries("alice")) == 1
    desk.engine.handle(b"alice", "alice", wire.to_broker(wire.Heartbeat()))
    (answer,) = desk.engine.run_turn()
    desk.engine.undelivered(answer, gone=True)
    desk.consume("bob", "a")
    assert desk.deliveries("bob") == []
    desk.send("alice", wire.Bye())
    assert [handed.attempt for handed in desk.deliveries("bob")] == [2]

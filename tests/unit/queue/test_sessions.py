"""What a client may do within its sessions: numbers taken twice, credit changed, a name of its software made up."""

import logging
from pathlib import Path

import pytest

from appliance.queue import wire
from tests.unit.queue.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    for name in ("alice", "bob"):
        made.hello(name)
        made.heard(name)
    return made


def test_credit_is_changed_by_consuming_again_with_what_is_in_hand(desk: Desk) -> None:
    for number in range(8):
        desk.publish("alice", wire.Item("a", f"{number}"))
    desk.consume("bob", "a", credit=2)
    held = [handed.token for handed in desk.deliveries("bob")]
    assert len(held) == 2
    desk.consume("bob", "a", credit=3, held=tuple(held))
    held += [handed.token for handed in desk.deliveries("bob")]
    assert len(held) == 3
    desk.consume("bob", "a", credit=1, held=tuple(held))
    for token in held[:2]:
        assert desk.settle("bob", token) == wire.STORED
        assert desk.deliveries("bob") == []
    assert desk.settle("bob", held[2]) == wire.STORED
    assert len(desk.deliveries("bob")) == 1


def test_what_another_subscription_has_in_hand_stays_with_it(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    desk.publish("alice", wire.Item("a", "2"))
    desk.consume("bob", "a", credit=1)
    (first,) = desk.deliveries("bob")
    desk.ask("bob", wire.Consume(2, 6, "a", 1, (first.token,)))
    assert [handed.id for handed in desk.deliveries("bob")] == ["2"]


@pytest.mark.parametrize("software", ["one\ntwo", "\x1b[2J", "x" * 2000])
def test_a_client_writes_no_lines_of_its_own_into_the_journal(
    desk: Desk, caplog: pytest.LogCaptureFixture, software: str
) -> None:
    with caplog.at_level(logging.INFO):
        desk.send("alice", wire.Hello(software))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.isprintable()
    assert len(line) < 150

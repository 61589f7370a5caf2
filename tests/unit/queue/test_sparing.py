"""What peers have the journal say: at whatever rate they come, a few lines a minute, and nothing goes uncounted."""

import logging
from pathlib import Path

import pytest

from appliance.queue import wire
from appliance.queue.client import generate_keys
from appliance.queue.sparing import FEW, MOST, WINDOW_S, Sparing
from tests.unit.queue.desk import Desk, HandClock
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import Broker
from tests.unit.queue.test_security import wait_until

log = logging.getLogger(__name__)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def sparing(clock: HandClock, caplog: pytest.LogCaptureFixture) -> Sparing:
    """Whose lines `caplog` has."""
    caplog.set_level(logging.INFO)
    return Sparing(log, clock.now)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was written since the last call."""
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


def test_the_first_few_of_a_minute_are_written_and_the_others_counted(
    sparing: Sparing, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        sparing.tell(logging.WARNING, "%s did %d", "eve", number)
        sparing.pass_time()
    assert told(caplog) == [f"eve did {number}" for number in range(FEW)]
    clock.advance(WINDOW_S)
    sparing.pass_time()
    assert told(caplog) == [f"{1000 - FEW} more like this within 60 s: eve did 0"]
    sparing.tell(logging.WARNING, "%s did %d", "eve", 1000)
    assert told(caplog) == ["eve did 1000"]


def test_what_happens_now_and_then_is_written_in_full(
    sparing: Sparing, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2 * FEW):
        sparing.tell(logging.INFO, "%s is here", "eve")
        clock.advance(WINDOW_S / FEW)
        sparing.pass_time()
    assert told(caplog) == ["eve is here"] * 2 * FEW


def test_nobody_is_hidden_by_another_or_by_another_line(sparing: Sparing, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        sparing.tell(logging.INFO, "%s is here", "eve")
    sparing.tell(logging.INFO, "%s is here", "bob")
    sparing.tell(logging.INFO, "%s has left", "eve")
    assert told(caplog) == [*["eve is here"] * FEW, "bob is here", "eve has left"]


def test_any_number_of_peers_is_told_in_a_bounded_number_of_lines(
    sparing: Sparing, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10_000):
        sparing.tell(logging.WARNING, "%s is unknown", f"peer-{number}")
    assert told(caplog) == [f"peer-{number} is unknown" for number in range(MOST + FEW)]
    clock.advance(WINDOW_S)
    sparing.pass_time()
    assert told(caplog) == [f"{10_000 - MOST - FEW} more like this within 60 s: peer-{MOST} is unknown"]


def test_a_member_that_speaks_nonsense_does_not_fill_the_journal(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="appliance.queue.engine"):
        for _ in range(200):
            desk.send("alice", wire.Hello("test"))
            desk.engine.handle(b"alice", "alice", [b"nonsense"])
        assert len(told(caplog)) == 2 * FEW
        desk.clock.advance(WINDOW_S)
        desk.engine.run_turn()
        lines = [line for line in told(caplog) if "more like this" in line]
    assert [line.partition(" ")[0] for line in lines] == [str(200 - FEW)] * 2


def test_a_stranger_that_knocks_for_ever_does_not_fill_the_journal(broker: Broker) -> None:
    stranger = generate_keys()
    said = f"refused the key {stranger.public}"
    for _ in range(6 * FEW):
        with Peer(broker.connection(keys=stranger), hello=False) as peer:
            assert peer.hears_nothing(100)
    other = generate_keys()
    with Peer(broker.connection(keys=other), hello=False):
        wait_until(lambda: f"refused the key {other.public}" in broker.log())
    assert FEW <= broker.log().count(said) <= 2 * FEW  # a minute may have ended in between

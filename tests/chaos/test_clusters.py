"""What one cluster published for another is judged at the other, under the name it has there."""

import pytest

from appliance.queue.store import Brief, State
from tests.chaos.checker import check
from tests.chaos.clusters import lost_on_the_way, seen_from
from tests.chaos.history import Delivered, Line, Publish, Published, Settle, Settled

SENT: list[Line] = [
    Publish(by="a-p", at=1.0, wall=1.0, id="x", address="lan/b/work"),
    Published(by="a-p", at=2.0, wall=2.0, id="x", answer="stored", began=1.0),
]
RECEIVED: list[Line] = [
    Delivered(by="b-c", at=3.0, wall=3.0, seq=7, fence=1, id="x", origin="lan/a/a-p", address="work", attempt=1),
    Settle(by="b-c", at=4.0, wall=4.0, seq=7, fence=1, outcome="done"),
    Settled(by="b-c", at=5.0, wall=5.0, seq=7, fence=1, outcome="done", answer="ok", began=4.0),
]


def row(seq: int, origin: str, address: str, state: State, attempt: int = 1) -> Brief:
    return Brief(seq, origin, "x", address, state, attempt, 8, 1, 1.0, 1.0, "", "")


HERE = row(1, "a-p", "lan/b/work", State.DONE)
THERE = row(7, "lan/a/a-p", "work", State.DONE)


def found(history: list[Line], a: list[Brief], b: list[Brief]) -> dict[str, set[str]]:
    stores = {"a": a, "b": b}
    found = {name: {v.invariant for v in check(seen_from(name, history, stores), stores[name])} for name in stores}
    return found | ({"way": {"lost"}} if lost_on_the_way(stores) else {})


def test_what_was_carried_and_done_is_as_it_should_be() -> None:
    assert found(SENT + RECEIVED, [HERE], [THERE]) == {"a": set(), "b": set()}


@pytest.mark.parametrize(
    ("history", "a", "b", "expected"),
    [
        (SENT, [HERE], [], {"a": set(), "b": {"lost"}, "way": {"lost"}}),
        (SENT[:1], [HERE], [], {"a": set(), "b": set(), "way": {"lost"}}),
        (SENT, [row(1, "a-p", "lan/b/work", State.READY)], [], {"a": {"state"}, "b": {"lost"}}),
        (RECEIVED, [], [THERE], {"a": set(), "b": {"unpublished"}}),
        (SENT + RECEIVED, [HERE], [THERE, row(8, "lan/a/a-p", "work", State.DONE)], {"a": set(), "b": {"duplicate"}}),
    ],
    ids=["lost on the way", "lost on the way and unknown", "still here", "from nowhere", "carried twice"],
)
def test_what_goes_wrong_on_the_way_is_found(
    history: list[Line], a: list[Brief], b: list[Brief], expected: dict[str, set[str]]
) -> None:
    assert found(history, a, b) == expected


def test_what_was_set_aside_here_need_not_be_there() -> None:
    dead = [
        row(1, "a-p", "lan/b/work", State.DEAD, attempt=8),
        Brief(2, "queue", "dead-letter-1-1", "notice.mail", State.EXPIRED, 1, 8, 1, 1.0, 1.0, "", ""),
    ]
    assert found(SENT, dead, []) == {"a": set(), "b": set()}

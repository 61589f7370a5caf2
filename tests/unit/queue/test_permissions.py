"""Each right covers what its patterns stand for and nothing else, however an address is written."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from appliance.contracts.access import Rights
from appliance.queue import wire
from appliance.queue.address import Home
from appliance.queue.errors import BadAddress
from tests.unit.queue.desk import Desk, temporary_directory
from tests.unit.queue.test_address import stands_for

HOME = Home("lan", "main")
VERBS = ("publish", "consume", "emit", "subscribe", "call", "serve")
PLACE = st.sampled_from(["", "", "lan/main/", "lan/east/", "*/*/", "lan/*/", "/", "LAN/main/"])
TEXT = st.builds(str.__add__, PLACE, st.text("ab.*é\n\0", max_size=6))
PATTERNS = st.lists(TEXT, max_size=3).map(tuple)


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with temporary_directory() as folder:
        yield Desk(Path(folder))


def canonical(verb: str, text: str) -> str | None:
    """What the text means in this cluster, None where it means nothing."""
    try:
        return HOME.short_pattern(text) if verb in ("consume", "subscribe") else HOME.short(text)
    except BadAddress:
        return None


def granted(desk: Desk, verb: str, text: str) -> bool:
    """Whether the broker does not refuse it for want of a right."""
    headers: dict[str, wire.Header] = {
        "publish": wire.Publish(1, (wire.Item(text, "id"),)),
        "consume": wire.Consume(1, 1, text, 1),
        "emit": wire.Emit(1, text),
        "subscribe": wire.Subscribe(1, 1, text),
        "call": wire.Call(1, text, 1.0),
        "serve": wire.Serve(1, text),
    }
    header = headers[verb]
    desk.hello("mallory")
    desk.heard("mallory")
    desk.send("mallory", header, *[b""] * header.bodies)
    answer = next(h for h, _ in desk.heard("mallory") if isinstance(h, wire.Results | wire.Bye | wire.Reply))
    if isinstance(answer, wire.Bye):
        assert answer.code == "wire-malformed"
        return False
    fault = answer.fault if isinstance(answer, wire.Reply) else next((t.fault for t in answer.troubles), None)
    return fault is None or fault.code not in ("not-permitted", "bad-address")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(VERBS), st.sampled_from(VERBS), PATTERNS, TEXT)
@example("publish", "publish", ("*",), "*")
@example("publish", "publish", ("*",), "lan/main/a")
@example("publish", "publish", ("*",), "lan/east/a")
@example("consume", "consume", ("a*",), "*")
@example("consume", "consume", ("a*", "b*"), "*")
@example("subscribe", "subscribe", ("*",), "*/*/*")
@example("consume", "consume", ("lan/*/*",), "lan/main/a")
@example("publish", "consume", ("*",), "a")
@example("call", "call", ("",), "")
def test_a_right_is_given_exactly_where_a_pattern_of_it_covers(
    desk: Desk, listed: str, verb: str, patterns: tuple[str, ...], text: str
) -> None:
    desk.change("mallory", Rights(**{listed: patterns}))
    meant = canonical(verb, text)
    covered = meant is not None and listed == verb and any(stands_for(pattern, meant) for pattern in patterns)
    assert granted(desk, verb, text) is covered


def test_a_move_needs_the_right_to_publish_where_it_goes(desk: Desk) -> None:
    desk.hello("alice")
    desk.publish("alice", wire.Item("from", "1"))
    desk.change("mallory", Rights(consume=("from",), publish=("allowed",)))
    desk.hello("mallory")
    desk.consume("mallory", "from")
    (held,) = desk.deliveries("mallory")
    for address, status in (("refused", wire.REFUSED), ("from", wire.REFUSED), ("allowed", wire.STORED)):
        moved = desk.ask("mallory", wire.Move(1, held.token, wire.Item(address, f"to-{address}")), b"")
        assert moved.statuses == (status,)


def test_a_lease_is_settled_renewed_and_moved_in_the_name_that_holds_it_only(desk: Desk) -> None:
    for name in ("alice", "bob"):
        desk.hello(name)
    desk.publish("alice", wire.Item("mine", "mine"))
    desk.consume("alice", "mine")
    (held,) = desk.deliveries("alice")
    assert desk.settle("bob", held.token) == wire.STALE
    assert desk.ask("bob", wire.Move(1, held.token, wire.Item("theirs", "theirs")), b"").statuses == (wire.STALE,)
    desk.consume("bob", "mine", held=(held.token,))
    assert desk.settle("alice", held.token) == wire.STORED

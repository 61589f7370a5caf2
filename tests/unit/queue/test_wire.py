"""The frames: what goes in comes out, and nothing else gets in."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.queue import wire
from appliance.queue.errors import WireError
from tests.unit.queue.damage import damaged

NUMBER = st.integers(0, 2**63 - 1)
TOKEN = st.tuples(NUMBER, NUMBER)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
SPAN = st.floats(0, 3e8)
MAYBE = st.none
ITEM = st.builds(
    wire.Item,
    NAME,
    NAME,
    SPAN,
    MAYBE() | st.floats(0, 1e10),
    MAYBE() | SPAN,
    MAYBE() | st.integers(1, 1000),
    MAYBE() | NAME,
)
FAULT = st.builds(wire.Fault, TEXT, TEXT, TEXT, st.integers(400, 599))
OUTCOME = st.builds(wire.Outcome, TOKEN, st.integers(0, 3), SPAN, TEXT)
TO_BROKER = st.one_of(
    st.builds(wire.Hello, TEXT),
    st.builds(wire.Publish, NUMBER, st.lists(ITEM, min_size=1, max_size=4).map(tuple)),
    st.builds(wire.Consume, NUMBER, NUMBER, NAME, st.integers(1, 4096), st.lists(TOKEN, max_size=3).map(tuple)),
    st.builds(wire.Subscribe, NUMBER, NUMBER, NAME),
    st.builds(wire.Cancel, NUMBER),
    st.builds(wire.Settle, NUMBER, st.lists(OUTCOME, min_size=1, max_size=4).map(tuple)),
    st.builds(wire.Move, NUMBER, TOKEN, ITEM),
    st.builds(wire.Emit, NUMBER, NAME, st.booleans(), st.floats(0, 1e10)),
    st.builds(wire.Call, NUMBER, NAME, SPAN),
    st.builds(wire.Serve, NUMBER, NAME),
    st.builds(wire.Answer, NUMBER, MAYBE() | FAULT),
    st.builds(wire.Heartbeat, st.lists(TOKEN, max_size=3).map(tuple)),
    st.builds(wire.Bye, TEXT, TEXT),
)
TO_CLIENT = st.one_of(
    st.builds(wire.Welcome, TEXT, TEXT, TEXT, SPAN, SPAN, NUMBER),
    st.builds(
        wire.Results, NUMBER, st.lists(st.integers(0, 4), max_size=4).map(tuple),
        st.lists(st.builds(wire.Trouble, st.integers(0, 9), FAULT, SPAN), max_size=2).map(tuple),
    ),
    st.builds(
        wire.Deliver, NUMBER,
        st.lists(st.builds(wire.Handed, TOKEN, NAME, NAME, NAME, st.integers(1, 99), st.floats(0, 1e10)),
        max_size=3).map(tuple), ), st.builds(wire.Happened, NUMBER, NAME, NAME, st.floats(0, 1e10), st.booleans()),
        st.builds(wire.Asked, NUMBER, NAME, NAME, SPAN), st.builds(wire.Reply, NUMBER, MAYBE() | FAULT),
        st.builds(wire.Heartbeat), st.builds(wire.Bye, TEXT, TEXT), )  # fmt: skip


def with_bodies(header: wire.Header) -> st.SearchStrategy[tuple[wire.Header, list[bytes]]]:
    bodies = st.lists(st.binary(max_size=20), min_size=header.bodies, max_size=header.bodies)
    return bodies.map(lambda found: (header, found))


@given(TO_BROKER.flatmap(with_bodies))
def test_what_a_client_sends_the_broker_reads(message: tuple[wire.Header, list[bytes]]) -> None:
    assert wire.from_client(wire.to_broker(*message)) == message


@given(TO_CLIENT.flatmap(with_bodies))
def test_what_the_broker_sends_a_client_reads(message: tuple[wire.Header, list[bytes]]) -> None:
    assert wire.from_broker(wire.to_client(*message)) == message


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_random_bytes_are_an_error_and_never_a_crash(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        wire.from_client(frames)


@given(st.sampled_from(sorted(wire.TO_BROKER)), st.binary(max_size=60), st.lists(st.binary(max_size=5), max_size=3))
def test_a_random_header_is_refused_or_is_a_header(command: bytes, header: bytes, bodies: list[bytes]) -> None:
    result: Any
    try:
        result, left = wire.from_client([wire.VERSION, command, header, *bodies])
    except WireError:
        return
    assert type(result) is wire.TO_BROKER[command]
    assert left == bodies
    assert len(left) == result.bodies


@settings(max_examples=1000)
@given(TO_BROKER.flatmap(with_bodies), st.data())
def test_a_damaged_message_is_refused_or_is_one(
    message: tuple[wire.Header, list[bytes]], data: st.DataObject
) -> None:
    frames = wire.to_broker(*message)
    place = data.draw(st.integers(2, len(frames) - 1))
    frames[place] = data.draw(damaged(frames[place]))
    try:
        header, bodies = wire.from_client(frames)
    except WireError:
        return
    assert header.bodies == len(bodies)
    assert wire.from_client(wire.to_broker(header, bodies)) == (header, bodies)


def test_each_command_has_a_byte_of_its_own() -> None:
    assert not set(wire.TO_BROKER) & set(wire.TO_CLIENT)
    assert all(len(command) == 1 for command in [*wire.TO_BROKER, *wire.TO_CLIENT])
    assert len(set(wire.TO_BROKER.values())) == len(wire.TO_BROKER)

"""Frames that are wrong: whoever sends them loses the session, the others notice nothing."""

import asyncio

import msgspec
import pytest

from appliance.queue import wire
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import Broker

HEADER = msgspec.msgpack.encode
WRONG = {
    "nothing": [b""],
    "another version": [b"ARQ9", b"\x01", HEADER(["x"])],
    "no header": [b"ARQ1", b"\x01"],
    "an unknown command": [b"ARQ1", b"\x7f", HEADER([])],
    "a command of the broker's": wire.to_client(wire.Heartbeat()),
    "a header that is no MessagePack": [b"ARQ1", b"\x02", b"\xc1"],
    "a header of another command": [b"ARQ1", b"\x02", HEADER(["x"])],
    "a field too many": [b"ARQ1", b"\x05", HEADER([1, 2])],
    "a body too few": [b"ARQ1", b"\x02", HEADER([1, [["a", "b"]]])],
    "bodies in frames of their own": [b"ARQ1", b"\x02", HEADER([1, [["a", "b"], ["a", "c"]]]), b"", b""],
    "bodies that are no array": [b"ARQ1", b"\x02", HEADER([1, [["a", "b"]]]), b"body"],
    "a body that is text": [b"ARQ1", b"\x02", HEADER([1, [["a", "b"]]]), HEADER(["body"])],
    "a body too many": [b"ARQ1", b"\x0c", HEADER([[]]), b"x"],
    "a negative number": [b"ARQ1", b"\x05", HEADER([-1])],
    "not a number": [b"ARQ1", b"\x02", HEADER([1, [["a", "b", float("nan")]]]), HEADER([b""])],
    "deep nesting": [b"ARQ1", b"\x02", b"\x91" * 50_000],
    "thousands of frames": [b"ARQ1", b"\x02", HEADER([1, [["a", "b"]]]), *[b""] * 5000],
}


@pytest.mark.parametrize("frames", WRONG.values(), ids=WRONG.keys())
def test_wrong_frames_end_the_session_of_the_sender_only(broker: Broker, frames: list[bytes]) -> None:
    with Peer(broker.connection()) as wrong, Peer(broker.connection()) as right:
        wrong.send_frames(frames)
        assert wrong.receive(wire.Bye)[0].code == "wire-malformed"
        wrong.send(wire.Heartbeat())
        assert wrong.receive(wire.Bye)[0].code == "session-unknown"
        right.send(wire.Heartbeat())
        right.receive(wire.Heartbeat)


def test_a_message_before_hello_is_answered_with_session_unknown(broker: Broker) -> None:
    with Peer(broker.connection(), hello=False) as peer:
        peer.send(wire.Publish(1, (wire.Item("early", "early"),)), b"")
        assert peer.receive(wire.Bye)[0].code == "session-unknown"
        peer.hello()
        assert peer.publish("early", "early") == wire.STORED


def test_a_frame_over_the_limit_closes_the_connection(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            await q.publish("others", b"")

    with Peer(broker.connection()) as huge:
        huge.send(wire.Publish(1, (wire.Item("huge", "huge"),)), b"\0" * (21 * 2**20))
        asyncio.run(main())
        assert huge.hears_nothing(200)

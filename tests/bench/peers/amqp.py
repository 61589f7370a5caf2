"""A client for RabbitMQ as lean as Python allows: prepared frames, one write for many, no object per message.

AMQP 0-9-1 (the specification's section 4.2 has the frames). It is here because RabbitMQ's usual Python client would be
what is measured, not RabbitMQ.
"""

import select
import socket
import struct
from collections.abc import Sequence

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = b"\xce"
FRAME = struct.Struct(">BHI")
METHOD_ID = struct.Struct(">HH")
TAG = struct.Struct(">Q")

START, START_OK, TUNE, TUNE_OK, OPEN, OPEN_OK = ((10, n) for n in (10, 11, 30, 31, 40, 41))
CHANNEL_OPEN, CHANNEL_OPEN_OK = (20, 10), (20, 11)
DECLARE, DECLARE_OK, DELETE, DELETE_OK = ((50, n) for n in (10, 11, 40, 41))
QOS, QOS_OK, CONSUME, CONSUME_OK, PUBLISH, DELIVER, ACK = ((60, n) for n in (10, 11, 20, 21, 40, 60, 80))
CONFIRM, CONFIRM_OK = (85, 10), (85, 11)
PERSISTENT = struct.pack(">HB", 1 << 12, 2)
"""Property flags and delivery mode 2."""

Method = tuple[int, int]
Frame = tuple[int, bytes]


def short(text: str) -> bytes:
    """Return a short string."""
    return bytes([len(text)]) + text.encode()


def long(data: bytes) -> bytes:
    """Return a long string, or a table."""
    return struct.pack(">I", len(data)) + data


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a whole frame."""
    return FRAME.pack(kind, channel, len(payload)) + payload + END


def method(channel: int, which: Method, arguments: bytes = b"") -> bytes:
    """Return a method frame."""
    return frame(METHOD, channel, METHOD_ID.pack(*which) + arguments)


class Client:
    """One connection with one channel, in confirm mode; one queue to publish to or to consume from."""

    def __init__(self, port: int, queue: str) -> None:
        self._queue = queue
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._early: list[Frame] = []
        self._next_confirmed = 1
        self._confirmed_early: set[int] = set()
        self._delivered = 0
        self._head = method(1, PUBLISH, struct.pack(">H", 0) + short("") + short(queue) + b"\0")
        self._handshake()
        self._ask(method(1, CHANNEL_OPEN, short("")), CHANNEL_OPEN_OK)
        self._ask(method(1, CONFIRM, b"\0"), CONFIRM_OK)

    def _handshake(self) -> None:
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(START)
        login = short("PLAIN") + long(b"\0guest\0guest") + short("en_US")
        tune = self._ask(method(0, START_OK, long(b"") + login), TUNE)
        self._socket.sendall(method(0, TUNE_OK, tune[:6] + b"\0\0"))  # the sizes it offers, and no heartbeat
        self._ask(method(0, OPEN, short("/") + short("") + b"\0"), OPEN_OK)

    def _ask(self, request: bytes, answer: Method) -> bytes:
        self._socket.sendall(request)
        return self._expect(answer)

    def _expect(self, which: Method) -> bytes:
        """Return the arguments of the next method, which has to be this one."""
        while not (frames := self._read()):
            pass
        (_kind, payload), *self._early = frames
        if METHOD_ID.unpack_from(payload) != which:
            raise RuntimeError(f"RabbitMQ did not say {which}: {payload!r}")
        return payload[4:]

    def _read(self) -> list[Frame]:
        """Return what has come whole, after waiting for at least some bytes."""
        if self._early:
            frames, self._early = self._early, []
            return frames
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionError("RabbitMQ has closed the connection")
        data = self._rest + data
        frames = []
        at, size = 0, len(data)
        while size - at >= 7:
            kind, _channel, length = FRAME.unpack_from(data, at)
            end = at + 7 + length
            if end >= size:
                break
            frames.append((kind, data[at + 7 : end]))
            at = end + 1
        self._rest = data[at:]
        return frames

    def wait(self, seconds: float) -> bool:
        """Return whether something has come; wait so long for it."""
        return bool(self._early or select.select([self._socket], [], [], seconds)[0])

    def rest(self) -> None:
        """Do nothing: what is acknowledged is not answered."""

    def declare(self) -> None:
        """Make the quorum queue."""
        kind = short("x-queue-type") + b"S" + long(b"quorum")
        self._ask(method(1, DECLARE, struct.pack(">H", 0) + short(self._queue) + b"\x02" + long(kind)), DECLARE_OK)

    def delete(self) -> None:
        """Remove the queue with all that is in it."""
        self._ask(method(1, DELETE, struct.pack(">H", 0) + short(self._queue) + b"\0"), DELETE_OK)

    def send(self, bodies: Sequence[bytes]) -> None:
        """Publish, all in one write."""
        parts: list[bytes] = []
        for body in bodies:
            header = frame(HEADER, 1, struct.pack(">HHQ", 60, 0, len(body)) + PERSISTENT)
            parts += (self._head, header, FRAME.pack(BODY, 1, len(body)), body, END)
        self._socket.sendall(b"".join(parts))

    def confirmations(self) -> list[int]:
        """Return the numbers (from 1) of messages that are now confirmed; wait for something to come."""
        confirmed: list[int] = []
        for _kind, payload in self._read():
            if METHOD_ID.unpack_from(payload) != ACK:
                raise RuntimeError(f"RabbitMQ did not confirm: {payload!r}")
            (tag,) = TAG.unpack_from(payload, 4)
            if payload[12]:  # all up to this one
                confirmed += [n for n in range(self._next_confirmed, tag + 1) if n not in self._confirmed_early]
                self._confirmed_early = {n for n in self._confirmed_early if n > tag}
                self._next_confirmed = max(self._next_confirmed, tag + 1)
            else:
                confirmed.append(tag)
                self._confirmed_early.add(tag)
            while self._next_confirmed in self._confirmed_early:
                self._confirmed_early.remove(self._next_confirmed)
                self._next_confirmed += 1
        return confirmed

    def consume(self, window: int) -> None:
        """Ask for deliveries, at most `window` of them unacknowledged."""
        self._ask(method(1, QOS, struct.pack(">IHB", 0, window, 0)), QOS_OK)
        wanted = struct.pack(">H", 0) + short(self._queue) + short("bench") + b"\0" + long(b"")
        self._ask(method(1, CONSUME, wanted), CONSUME_OK)

    def deliveries(self) -> list[bytes]:
        """Return the bodies of what was delivered, acknowledged all at once; wait for something to come.

        Delivery tags count from 1. No body here is so long that it takes a second frame (128 KiB).
        """
        bodies: list[bytes] = []
        for kind, payload in self._read():
            if kind == METHOD:
                if METHOD_ID.unpack_from(payload) != DELIVER:
                    raise RuntimeError(f"RabbitMQ did not deliver: {payload!r}")
            elif kind == BODY:
                bodies.append(payload)
        self._delivered += len(bodies)
        if bodies:
            self._socket.sendall(method(1, ACK, TAG.pack(self._delivered) + b"\x01"))
        return bodies

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

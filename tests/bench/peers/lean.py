"""A client for our own queue as lean as Python allows, like those for the peers: no object or future for a message.

The protocol is that of appliance/queue/PROTOCOL.md. It is here because the appliance's own client, which keeps a
session open for ever and has a future for each message, would be what is measured; its figures are beside.
"""

import itertools
import os
import select
from collections.abc import Sequence
from typing import Any

import msgspec
import zmq

from appliance.queue.auth import join_curve
from appliance.queue.connection import Connection
from appliance.queue.sockets import is_readable

MOST_BYTES = 4 * 2**20
WELCOME, RESULTS, DELIVER = b"\x81", b"\x82", b"\x83"
ANSWERED_WITHIN_MS = 60_000

encode = msgspec.msgpack.Encoder().encode
decode: Any = msgspec.msgpack.Decoder().decode


class Client:
    """One session; one address to publish to, up to `batch` in a message, or to consume from."""

    def __init__(self, connection: Connection, queue: str, batch: int) -> None:
        self._queue = queue
        self._batch = batch
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.rcvtimeo = ANSWERED_WITHIN_MS
        self._socket.reconnect_ivl = 10
        join_curve(self._socket, connection.keys, connection.server_key)
        self._socket.connect(connection.endpoint)
        self._requests = itertools.count(1)
        self._ids = itertools.count(1)
        self._prefix = os.urandom(8).hex()
        self._confirmed = 0
        self._open: dict[int, int] = {}
        """The requests without an answer, and how many messages each is about."""
        self._say(b"\x01", ["bench"])
        if self._heard()[1] != WELCOME:
            raise ConnectionError("the broker does not welcome us")

    def _say(self, command: bytes, header: list[object], *bodies: bytes) -> None:
        self._socket.send_multipart([b"ARQ1", command, encode(header), *bodies])

    def _heard(self) -> list[bytes]:
        return self._socket.recv_multipart()

    def _all_heard(self) -> list[list[bytes]]:
        """Return what has come, after waiting for at least one message."""
        heard = [self._heard()]
        while is_readable(self._socket):
            heard.append(self._heard())
        return heard

    def wait(self, seconds: float) -> bool:
        """Return whether something has come; wait so long for it."""
        if not is_readable(self._socket):
            select.select([self._socket.fileno()], [], [], seconds)
        return is_readable(self._socket)

    def send(self, bodies: Sequence[bytes]) -> None:
        """Publish, with many in a message."""
        most = max(1, min(self._batch, MOST_BYTES // len(bodies[0])))
        for start in range(0, len(bodies), most):
            part = bodies[start : start + most]
            request = next(self._requests)
            self._open[request] = len(part)
            items = [(self._queue, f"{self._prefix}{number:012x}") for number in itertools.islice(self._ids, len(part))]
            self._say(b"\x02", [request, items], encode(part))

    def confirmations(self) -> list[int]:
        """Return the numbers (from 1) of messages that are now confirmed; wait for something to come."""
        before = self._confirmed
        for _version, command, header in self._all_heard():
            request, statuses, *_ = decode(header)
            if command != RESULTS or any(statuses):
                raise RuntimeError(f"the broker did not confirm: {header!r}")
            self._confirmed += self._open.pop(request)
        return list(range(before + 1, self._confirmed + 1))

    def consume(self, window: int) -> None:
        """Ask for deliveries, at most `window` of them unsettled."""
        self._open[0] = 1
        self._say(b"\x03", [0, 1, self._queue, window])
        self.rest()

    def deliveries(self) -> list[bytes]:
        """Return the bodies of what was delivered, settled all at once; wait for something to come."""
        bodies: list[bytes] = []
        ends: list[tuple[object, int]] = []
        for frames in self._all_heard():
            header = decode(frames[2])
            if frames[1] == RESULTS:
                self._answered(header)
            elif frames[1] == DELIVER:
                ends += [(item[0], 0) for item in header[1]]
                bodies += decode(frames[3])
        if ends:
            request = next(self._requests)
            self._open[request] = len(ends)
            self._say(b"\x06", [request, ends])
        return bodies

    def _answered(self, header: list[Any]) -> None:
        request, statuses, *_ = header
        if any(statuses):
            raise RuntimeError(f"the broker refused: {header}")
        del self._open[request]

    def rest(self) -> None:
        """Wait until everything that was asked is answered: every end is on the broker's disk."""
        while self._open:
            _version, command, header = self._heard()
            if command != RESULTS:
                raise RuntimeError(f"the broker did not answer: {command!r}")
            self._answered(decode(header))

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close(linger=500)
        self._context.term()

"""A peer that speaks the protocol by hand, so that it can also misbehave: no heartbeats, odd frames, old tokens."""

from types import TracebackType
from typing import Self, TypeVar

import zmq

from appliance.queue import wire
from appliance.queue.auth import join_curve
from appliance.queue.client import Connection

H = TypeVar("H", bound=wire.Header)
ANSWERED_WITHIN_MS = 30_000


class Peer:
    """A blocking DEALER; `receive` fails the test when nothing comes."""

    def __init__(
        self, connection: Connection, *, hello: bool = True, identity: bytes = b"", high_water: int = 1000
    ) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvtimeo = ANSWERED_WITHIN_MS
        self._socket.rcvhwm = self._socket.sndhwm = high_water
        if identity:
            self._socket.identity = identity
        join_curve(self._socket, connection.keys, connection.server_key)
        self._socket.connect(connection.endpoint)
        if hello:
            self.hello()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()

    def send(self, header: wire.Header, *bodies: bytes) -> None:
        """Send a message of the protocol."""
        self.send_frames(wire.to_broker(header, bodies))

    def send_frames(self, frames: list[bytes]) -> None:
        """Send whatever it is."""
        self._socket.send_multipart(frames)

    def try_send(self, frames: list[bytes]) -> None:
        """Send, unless there is no room for a tenth of a second."""
        if self._socket.poll(100, zmq.POLLOUT):
            self._socket.send_multipart(frames)

    def receive_frames(self) -> list[bytes]:
        """Return the frames of the next message."""
        return self._socket.recv_multipart()

    def receive(self, kind: type[H]) -> tuple[H, list[bytes]]:
        """Return the next message of that kind, skipping others."""
        while True:
            header, bodies = wire.from_broker(self.receive_frames())
            if isinstance(header, kind):
                return header, bodies

    def may_send(self, milliseconds: int) -> bool:
        """Return whether there is room for a message within that time."""
        return self._socket.poll(milliseconds, zmq.POLLOUT) != 0

    def hears_nothing(self, milliseconds: int) -> bool:
        """Return whether no message comes in that time."""
        return self._socket.poll(milliseconds) == 0

    def hello(self) -> wire.Welcome:
        """Open a session, again if need be."""
        self.send(wire.Hello("test"))
        return self.receive(wire.Welcome)[0]

    def publish(self, address: str, message: str, body: bytes = b"") -> int:
        """Publish one item and return its status."""
        self.send(wire.Publish(7, (wire.Item(address, message),)), body)
        return self.receive(wire.Results)[0].statuses[0]

    def take(self, pattern: str) -> wire.Handed:
        """Take one delivery, in a subscription of its own."""
        self.send(wire.Consume(8, 8, pattern, 1))
        return self.receive(wire.Deliver)[0].items[0]

    def settle(self, token: wire.Token, outcome: int = wire.DONE) -> wire.Results:
        """End a delivery and return the broker's answer."""
        self.send(wire.Settle(9, (wire.Outcome(token, outcome),)))
        while True:
            results = self.receive(wire.Results)[0]
            if results.request == 9:
                return results

"""A client's socket on the event loop, without asyncio sockets, which cost half of the throughput."""

import asyncio
from collections import deque
from collections.abc import Callable

import zmq

from appliance.queue.auth import join_curve
from appliance.queue.connection import Connection
from appliance.queue.wire import Frames

MAX_AT_ONCE = 256
"""Messages taken in before the other tasks get their turn."""


class Pipe:
    """One DEALER socket. `on_message` is called for each message; nothing here blocks or raises for a missing broker.

    The descriptor of a ZeroMQ socket is edge-triggered and a send may use up the edge, so after each send the socket
    is looked at again (zmq_getsockopt(3), ZMQ_FD).
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", connection: Connection, on_message: Callable[[Frames], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._backlog: deque[Frames] = deque()
        self._scheduled = False
        self._closed = False
        self._socket = context.socket(zmq.DEALER)
        join_curve(self._socket, connection.keys, connection.server_key)
        self._socket.linger = 0
        self._socket.ipv6 = True
        self._socket.reconnect_ivl = 50
        self._socket.reconnect_ivl_max = 1000
        self._socket.handshake_ivl = 5000
        self._socket.connect(connection.endpoint)
        self._descriptor: int = self._socket.fileno()
        self._loop.add_reader(self._descriptor, self._pump)

    def send(self, frames: Frames) -> None:
        """Send, or keep until the socket takes it."""
        if self._backlog:
            self._backlog.append(frames)
        else:
            try:
                self._socket.send_multipart(frames, zmq.NOBLOCK)
            except zmq.Again:
                self._backlog.append(frames)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        for _ in range(MAX_AT_ONCE):
            if self._closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._on_message(frames)
        else:
            self._schedule()
        while self._backlog and not self._closed:
            try:
                self._socket.send_multipart(self._backlog[0], zmq.NOBLOCK)
            except zmq.Again:
                return
            self._backlog.popleft()
            self._schedule()

    def look(self) -> None:
        """Look at the socket once more, should an edge have been missed."""
        self._schedule()

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what was sent has `linger_s` to leave."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._descriptor)
            self._socket.close(linger=int(linger_s * 1000))

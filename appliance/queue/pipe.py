"""A client's socket on the event loop, without asyncio sockets, which cost half of the throughput."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable

import zmq

from appliance.queue.auth import join_curve
from appliance.queue.connection import Connection
from appliance.queue.sockets import READABLE, WRITABLE, events, is_readable, receive, send
from appliance.queue.wire import Frames

MAX_AT_ONCE = 256
"""Messages taken in before the other tasks get their turn."""

_numbers = itertools.count(1)


class Pipe:
    """One DEALER socket that speaks only to the holder of `server_key`.

    `on_message` is called for each message, `on_lost` when a connection that was there is gone; nothing here blocks or
    raises for a missing broker.

    The descriptor of a ZeroMQ socket is edge-triggered and a send may use up the edge, so after each send the socket
    is asked what there is (zmq_getsockopt(3), ZMQ_FD). It is asked before each receive too: to be told by an error that
    nothing waits would cost three times as much.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        connection: Connection,
        server_key: str,
        on_message: Callable[["Pipe", Frames], None],
        on_lost: Callable[["Pipe"], None],
    ) -> None:
        self.server_key = server_key
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_lost = on_lost
        self._backlog: deque[Frames] = deque()
        self._scheduled = False
        self._closed = False
        self._socket = context.socket(zmq.DEALER)
        join_curve(self._socket, connection.keys, server_key)
        self._socket.linger = 0
        self._socket.ipv6 = True
        self._socket.reconnect_ivl = 50
        self._socket.reconnect_ivl_max = 1000
        self._socket.handshake_ivl = 5000
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_DISCONNECTED, f"inproc://lost-{next(_numbers)}"
        )  # fmt: skip
        self._monitor.linger = 0
        self._monitor_descriptor: int = self._monitor.fileno()
        self._socket.connect(connection.endpoint)
        self._descriptor: int = self._socket.fileno()
        self._loop.add_reader(self._descriptor, self._pump)
        self._loop.add_reader(self._monitor_descriptor, self._watch)
        self._monitor.poll(0)  # from an empty socket on, its descriptor tells of the next event

    def send(self, frames: Frames) -> None:
        """Send, or keep until the socket takes it."""
        if self._backlog:
            self._backlog.append(frames)
        else:
            try:
                send(self._socket, frames)
            except zmq.Again:
                self._backlog.append(frames)
        if self._ready():
            self._schedule()

    def _ready(self) -> bool:
        """Return whether there is something to receive, or to send."""
        ready = events(self._socket)
        return bool(ready & READABLE or (self._backlog and ready & WRITABLE))

    def _schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        for _ in range(MAX_AT_ONCE):
            if self._closed:
                return
            if not is_readable(self._socket):
                break
            message = receive(self._socket)
            if message is not None:
                self._on_message(self, [message[0].bytes, *(frame.bytes for frame in message[1])])
        else:
            self._schedule()
        while self._backlog and not self._closed:
            try:
                send(self._socket, self._backlog[0])
            except zmq.Again:
                return
            self._backlog.popleft()
            self._schedule()

    def _watch(self) -> None:
        """Take in what came before the connection was lost, then say so."""
        lost = False
        while self._monitor.poll(0):
            self._monitor.recv_multipart(zmq.NOBLOCK)
            lost = True
        if lost:
            self._pump()
            self._on_lost(self)

    def look(self) -> None:
        """Look at the socket once more, should an edge have been missed."""
        self._schedule()

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what was sent has `linger_s` to leave."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_reader(self._monitor_descriptor)
            self._socket.disable_monitor()
            self._monitor.close()
            self._socket.close(linger=int(linger_s * 1000))

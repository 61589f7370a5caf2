"""Sending to ZeroMQ sockets and receiving from them without waiting.

Flags are plain numbers here: to combine pyzmq's enumerations takes longer than to send a frame.
"""

from collections.abc import Sequence
from typing import TypeAlias

import zmq

Socket: TypeAlias = "zmq.Socket[bytes]"

MAX_FRAMES = 8
"""More than any message has. Of a longer one the rest is not kept, and what is kept fits no command."""

READABLE, WRITABLE = int(zmq.POLLIN), int(zmq.POLLOUT)
LAST = int(zmq.NOBLOCK)
MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


def events(socket: Socket) -> int:
    """Return READABLE, WRITABLE, both or neither."""
    return int(socket.get(zmq.EVENTS))


def send(socket: Socket, frames: Sequence[bytes | zmq.Frame], *, copy: bool = True) -> None:
    """Send a message, or nothing of it and raise zmq.Again; ZMQError where a ROUTER does not know the route."""
    for frame in frames[:-1]:
        socket.send(frame, MORE, copy=copy)
    socket.send(frames[-1], LAST, copy=copy)


def is_readable(socket: Socket) -> bool:
    """Return whether a message waits; costs a third of what `receive` does where none does."""
    return events(socket) & READABLE != 0


def receive(socket: Socket) -> tuple[zmq.Frame, list[zmq.Frame]] | None:
    """Return the next message, its first frame (the route, with who sent it) and the others; None when none waits."""
    try:
        route = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    frames: list[zmq.Frame] = []
    more = route.more
    while more:
        frame = socket.recv(copy=False)
        more = frame.more
        if len(frames) < MAX_FRAMES:
            frames.append(frame)
    return route, frames

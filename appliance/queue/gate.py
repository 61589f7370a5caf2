"""The gate's process: `python3 -m appliance.queue.gate`. Peers from outside the machine come in here and nowhere else.

libzmq counts its limits in whole messages, so a peer with a good key that never ends a multipart eats memory without
bound. Here that is the gate's, which has a limit of its own: it dies and is started again, the peers come back, and the
broker and its clients on the machine have noticed nothing.

The gate knows whom to let in and how much of a message is too much, and understands nothing of what it hands on. It
speaks to the peers in the broker's name and to the broker with the broker's own key, since it must hold that anyway. It
ends with the broker that it knew, so that the peers notice at once, and starts again with the key that holds then.

    to the broker     [route, public key, frames …]   a message; without frames, one that was too large
                      [route]                         what was sent there did not arrive
    from the broker   [route, frames …]               a message
"""

import logging
import resource
import sys
from collections import deque
from pathlib import Path

import zmq

from appliance import notify
from appliance.contracts.service import CURVE_CREDENTIAL, credential, load
from appliance.queue.auth import KeyRing, join_curve
from appliance.queue.keys import Keys, public_of
from appliance.queue.loop import Loop, Patience, serve
from appliance.queue.sessions import weight
from appliance.queue.settings import GateSettings
from appliance.queue.sockets import WRITABLE, events, receive, send

log = logging.getLogger(__name__)

OUTSIDE = "alpha-ren-outside"
"""ZAP domain of the peers."""
MAX_AT_ONCE = 256
"""Messages handed on in one direction before the other has its turn."""
ROOM = 2**20
"""What a message may hold beyond its largest body."""
WAITING_IN, WAITING_ON, WAITING_OUT = 2, 4, 16
"""Whole messages that libzmq keeps of a peer, for the broker, and for a peer: few, since they may be large."""
MAX_HELD_BYTES = 8 * 2**20
"""More than this held for a peer that does not read, and it has lost its session."""
MAX_HELD_BYTES_IN_ALL = 8 * MAX_HELD_BYTES


class Held:
    """Messages for a peer that does not take them."""

    def __init__(self) -> None:
        self.messages: deque[list[zmq.Frame]] = deque()
        self.bytes = 0

    def keep(self, frames: list[zmq.Frame]) -> None:
        """Put a message behind the others."""
        self.messages.append(frames)
        self.bytes += weight(frames)


class Gate(Loop):
    """Hands messages on, in both directions, and holds back what the other side does not take."""

    def __init__(self, settings: GateSettings, keys: Keys, ring: KeyRing) -> None:
        super().__init__(ring, {OUTSIDE: self._knows})
        self._most_bytes = settings.max_body + ROOM
        self._held: dict[bytes, Held] = {}
        self._patience = Patience()
        self._lost: set[bytes] = set()
        self._outside = self._router(
            settings.bind, keys, OUTSIDE, max_body=settings.max_body, rcvhwm=WAITING_IN, sndhwm=WAITING_OUT
        )
        self._broker = self._context.socket(zmq.DEALER)
        join_curve(self._broker, keys, keys.public)
        self._broker.linger = 0
        self._broker.sndhwm = WAITING_ON
        self._broker.reconnect_ivl, self._broker.reconnect_ivl_max = 50, 1000
        self._ends = self._broker.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._broker.connect(settings.broker)
        self._poller.register(self._ends, zmq.POLLIN)

    def _knows(self, public_key: str) -> bool:
        return self._ring.find(public_key, outside=True) is not None

    def _rest_s(self) -> float:
        """A broker that does not take more is waited for, and the peers wait with it."""
        taken = self._is_taken()
        self._poller.register(self._broker, zmq.POLLIN if taken else zmq.POLLIN | zmq.POLLOUT)
        self._poller.register(self._outside, zmq.POLLIN if taken else 0)
        return self._patience.seconds if self._held else 1.0

    def _keys_changed(self) -> None:
        """What is held may be for a key that is not listed any more; the others come back for theirs."""
        for route in list(self._held):
            self._give_up(route)

    def _turn(self) -> None:
        if self._ends.poll(0):
            log.info("the broker is gone; the next one may have another key, with which the gate starts again")
            self.stop()
        while self._lost and self._is_taken():
            self._broker.send(self._lost.pop())
        self._hand_in()
        self._hand_out()
        if self._held:
            moved = [self._retry(route) for route in list(self._held)]
            self._patience.tried(moved=any(moved))

    def _is_taken(self) -> bool:
        """Whether the broker's side takes another message now."""
        return events(self._broker) & WRITABLE != 0

    def _hand_in(self) -> None:
        for _ in range(MAX_AT_ONCE):
            message = receive(self._outside) if self._is_taken() else None
            if message is None:
                return
            route, frames = message
            key = str(route.get("User-Id"))
            if not self._knows(key):
                continue  # revoked since it came in: nothing is accepted from it, and nothing is said
            if sum(map(len, frames)) > self._most_bytes:
                frames = []
            self._broker.send_multipart([route, key.encode(), *frames], copy=False)

    def _hand_out(self) -> None:
        for _ in range(MAX_AT_ONCE):
            message = receive(self._broker)
            if message is None:
                return
            route, frames = message[0].bytes, message[1]
            if route in self._held:
                self._hold(route, frames)
            elif route not in self._lost and not self._is_sent(route, frames):
                self._held[route] = Held()
                self._hold(route, frames)

    def _is_sent(self, route: bytes, frames: list[zmq.Frame]) -> bool:
        """Return whether the message needs no holding: it has gone, or its peer is."""
        try:
            send(self._outside, [route, *frames], copy=False)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._give_up(route)
        return True

    def _hold(self, route: bytes, frames: list[zmq.Frame]) -> None:
        held = self._held[route]
        held.keep(frames)
        crowded = len(held.messages) > 1 and held.bytes > MAX_HELD_BYTES
        if crowded or sum(each.bytes for each in self._held.values()) > MAX_HELD_BYTES_IN_ALL:
            log.warning("a peer does not take what it is sent; its session ends")
            self._give_up(route)

    def _retry(self, route: bytes) -> bool:
        """Return whether anything of what is held for the peer has gone."""
        held = self._held[route]
        before = len(held.messages)
        while held.messages and self._is_sent(route, held.messages[0]):
            held.bytes -= weight(held.messages.popleft())
        if not held.messages:
            self._held.pop(route, None)
        return len(held.messages) < before

    def _give_up(self, route: bytes) -> None:
        """Tell the broker that the peer misses something: it ends the session, and the peer opens another."""
        self._held.pop(route, None)
        self._lost.add(route)

    def close(self) -> None:
        """Close the sockets; the peers come back to the next start."""
        self._outside.close()
        self._broker.disable_monitor()
        self._ends.close()
        self._broker.close()
        super().close()


async def main() -> None:
    """Hand on until cancelled."""
    context = load()
    settings = context.parse_settings(GateSettings)
    resource.setrlimit(resource.RLIMIT_DATA, (settings.memory_mb * 2**20,) * 2)
    secret = credential(CURVE_CREDENTIAL)
    gate = Gate(settings, Keys(public=public_of(secret), secret=secret), KeyRing(Path(settings.access_file)))
    try:
        await serve(gate, f"Open at {', '.join(settings.bind)}")
    finally:
        gate.close()


if __name__ == "__main__":
    sys.exit(notify.run(main))

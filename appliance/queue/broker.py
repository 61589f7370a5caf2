"""The broker's sockets and its loop: drain, one transaction, then all the answers, then what could wait for that.

Two ways lead in: one for the machine itself, one for the gate, which brings the messages of peers from outside.
"""

import time
from collections.abc import Callable
from pathlib import Path

import zmq

from appliance.queue import wire
from appliance.queue.auth import KeyRing
from appliance.queue.engine import Engine
from appliance.queue.keys import Keys
from appliance.queue.loop import RETRY_S, Loop, Patience
from appliance.queue.sessions import MAX_STALLED_BYTES, MAX_STALLED_BYTES_IN_ALL, GateRoute, Parcel, Session
from appliance.queue.settings import BrokerSettings
from appliance.queue.sockets import Socket, is_readable, receive, send

MAX_DRAIN = 1024
"""Messages taken in before a turn ends, so that acknowledgements do not wait for ever."""
MAX_DRAIN_BYTES = 8 * 2**20
WAITING_IN, WAITING_OUT = 64, 128
"""Whole messages that libzmq keeps of a client and for one, whatever their size. With 16, a client that sends its
messages one by one would be half as fast; with 64 nobody is slower than with 1000.
"""
GATE_WAITING_IN = 8
"""The same of all peers from outside: they may all be large, and the gate holds its peers back."""
SHARED_BYTES = zmq.COPY_THRESHOLD
"""An event that is larger is in memory once, however many it goes to."""

PARTING_S = 1.0
"""How long a broker that stops waits for its clients to say that they know."""

INSIDE = "alpha-ren"
GATE = "alpha-ren-gate"
"""ZAP domains: whom the broker lets in on either way. The gate speaks with the broker's own key."""


class Broker(Loop):
    """Binds the endpoints, and lets the engine hear and speak through them."""

    def __init__(self, settings: BrokerSettings, keys: Keys, engine: Engine, ring: KeyRing) -> None:
        super().__init__(
            ring,
            {INSIDE: lambda key: ring.find(key, outside=False) is not None, GATE: lambda key: key == keys.public},
        )
        self._engine = engine
        self._stalled: set[Session] = set()
        self._patience = Patience()
        body = settings.max_body
        self._inside = self._router(settings.bind, keys, INSIDE, max_body=body, rcvhwm=WAITING_IN, sndhwm=WAITING_OUT)
        ways = (f"ipc://{settings.gate_socket}",) if settings.gate_socket else ()
        self._gate = self._router(ways, keys, GATE, max_body=body, rcvhwm=GATE_WAITING_IN, sndhwm=WAITING_OUT)
        if settings.gate_socket:
            Path(settings.gate_socket).chmod(0o666)  # the gate is another user; it is its key that opens

    def _keys_changed(self) -> None:
        self._engine.keys_changed()

    def _rest_s(self) -> float:
        seconds = self._engine.next_time()
        return min(seconds, self._patience.seconds) if self._stalled else seconds

    def _turn(self) -> None:
        """Raises StoreFailed."""
        self._drain(self._inside, self._from_inside)
        self._drain(self._gate, self._from_gate)
        for parcel in self._engine.run_turn():
            self._send(parcel)
        if self._stalled:
            moved = [self._send_stalled(session) for session in list(self._stalled)]
            self._patience.tried(moved=any(moved))
        if not (is_readable(self._inside) or is_readable(self._gate)):
            self._engine.rest()

    def _part(self) -> None:
        """Send everybody away, and go on reading until they have heard it: a close with unread data resets TCP.

        What a peer has not read goes back untouched, since nobody works on it.
        """
        for parcel in self._engine.say_bye():
            self._send(parcel)
        end = time.monotonic() + PARTING_S
        while self._engine.parting and time.monotonic() < end:
            self._wait(RETRY_S[1])
            self._drain(self._inside, self._from_inside)
            self._drain(self._gate, self._from_gate)

    def _drain(self, socket: Socket, take_in: Callable[[zmq.Frame, wire.Frames], None]) -> None:
        if socket not in self._named:
            return
        room = MAX_DRAIN_BYTES
        for _ in range(MAX_DRAIN):
            message = receive(socket)
            if message is None:
                return
            route, parts = message
            frames = [part.bytes for part in parts]
            take_in(route, frames)
            room -= sum(map(len, frames))
            if room < 0 or self._engine.laden or not is_readable(socket):
                return

    def _from_inside(self, route: zmq.Frame, frames: wire.Frames) -> None:
        self._engine.handle(route.bytes, str(route.get("User-Id")), frames)

    def _from_gate(self, gate: zmq.Frame, frames: wire.Frames) -> None:
        """The gate sends the peer's route, its public key and its message; the route alone says that it is lost."""
        match frames:
            case [peer]:
                self._engine.lost(GateRoute(gate.bytes, peer))
            case [peer, key, *message]:
                self._engine.handle(GateRoute(gate.bytes, peer), key.decode(errors="replace"), message)

    def _put(self, parcel: Parcel) -> None:
        route = parcel.route
        copy = parcel.latest is None or parcel.size < SHARED_BYTES
        if isinstance(route, GateRoute):
            send(self._gate, [*route, *parcel.frames], copy=copy)
        else:
            send(self._inside, [route, *parcel.frames], copy=copy)

    def _send(self, parcel: Parcel) -> None:
        session = parcel.session
        if session is not None and (session.closed or session.stalled):
            self._hold_back(session, parcel)
            return
        try:
            self._put(parcel)
        except zmq.Again:
            if session is not None:
                self._hold_back(session, parcel)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._engine.undelivered(parcel, gone=True)

    def _hold_back(self, session: Session, parcel: Parcel) -> None:
        """Keep what a slow peer does not take, up to a limit; of events only the newest of each topic."""
        if session.closed:
            self._engine.undelivered(parcel, gone=False)
            return
        session.stalled.keep(parcel)
        self._stalled.add(session)
        in_all = sum(each.stalled.bytes for each in self._stalled)
        if session.stalled.bytes > MAX_STALLED_BYTES or in_all > MAX_STALLED_BYTES_IN_ALL:
            self._stalled.discard(session)
            self._engine.drop_slow(session)

    def _send_stalled(self, session: Session) -> bool:
        """Return whether the peer has taken anything, or is gone."""
        moved = False
        for parcel in list(session.stalled):
            try:
                self._put(parcel)
            except zmq.Again:
                return moved
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._engine.undelivered(parcel, gone=True)
                break
            session.stalled.sent()
            moved = True
        self._stalled.discard(session)
        return True

    def close(self) -> None:
        """Close the sockets; what was acknowledged stays on disk, clients come back to the next start."""
        self._inside.close()
        self._gate.close()
        super().close()

"""The broker's sockets and its loop: drain, one transaction, then all the answers.

One thread polls; asyncio sockets would cost about half of the throughput.
"""

import logging
import socket

import zmq

from appliance.queue import wire
from appliance.queue.auth import KeyRing, ZapHandler, serve_curve
from appliance.queue.engine import Engine
from appliance.queue.keys import Keys
from appliance.queue.sessions import MAX_STALLED_BYTES, Parcel, Session
from appliance.queue.settings import BrokerSettings

log = logging.getLogger(__name__)

MAX_DRAIN = 1024
"""Messages taken in before a turn ends, so that acknowledgements do not wait for ever."""
MAX_DRAIN_BYTES = 8 * 2**20
MAX_FRAMES = wire.MAX_ITEMS + 3
STALLED_RETRY_S = 0.02
HIGH_WATER = 1000


class Broker:
    """Binds the endpoints; `run` works until `stop`, which may be called from a signal handler or another thread."""

    def __init__(self, settings: BrokerSettings, keys: Keys, engine: Engine, ring: KeyRing) -> None:
        self._engine = engine
        self._ring = ring
        self.turns = 0
        """How often the loop went round; it never rests for longer than a second."""
        self._stopping = False
        self._reload = False
        self._stalled: set[Session] = set()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap = ZapHandler(self._context, ring)
        self._socket = self._make_socket(settings, keys)
        self._poller = zmq.Poller()
        self._poller.register(self._zap.socket, zmq.POLLIN)
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_out.fileno(), zmq.POLLIN)

    def _make_socket(self, settings: BrokerSettings, keys: Keys) -> "zmq.Socket[bytes]":
        router = self._context.socket(zmq.ROUTER)
        serve_curve(router, keys)
        router.router_mandatory = True
        router.ipv6 = True
        router.linger = 500
        router.maxmsgsize = settings.max_body + 2**16
        router.rcvhwm = router.sndhwm = HIGH_WATER
        router.handshake_ivl = 5000
        # Only finds dead TCP peers; that the application lives is said by our own heartbeats.
        router.heartbeat_ivl = 5000
        router.heartbeat_timeout = 15000
        for endpoint in settings.bind:
            router.bind(endpoint)
        return router

    def stop(self) -> None:
        """Let `run` end its turn and return."""
        self._stopping = True
        self.wake()

    def reload_keys(self) -> None:
        """Let `run` read the key list again."""
        self._reload = True
        self.wake()

    def wake(self) -> None:
        """Let `run` look around now."""
        try:
            self._wake_in.send(b"!")
        except BlockingIOError:
            return  # it is being woken already

    def run(self) -> None:
        """Serve until stopped. Raises StoreFailed."""
        while not self._stopping:
            self.turns += 1
            self._wait()
            self._zap.answer_all()
            asked, self._reload = self._reload, False
            if self._ring.refresh(always=asked):
                self._engine.keys_changed()
            self._drain()
            for parcel in self._engine.run_turn():
                self._send(parcel)
            for session in list(self._stalled):
                self._send_stalled(session)

    def _wait(self) -> None:
        seconds = self._engine.next_time()
        if self._stalled:
            seconds = min(seconds, STALLED_RETRY_S)
        for ready, _ in self._poller.poll(int(seconds * 1000) + 1 if seconds else 0):
            if ready == self._wake_out.fileno():
                self._wake_out.recv(4096)

    def _drain(self) -> None:
        room = MAX_DRAIN_BYTES
        for _ in range(MAX_DRAIN):
            try:
                route = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            user = str(route.get("User-Id"))
            frames: wire.Frames = []
            more = bool(route.more)
            while more:
                frame = self._socket.recv(copy=False)
                more = bool(frame.more)
                if len(frames) <= MAX_FRAMES:
                    frames.append(frame.bytes)
                    room -= len(frames[-1])
            self._engine.handle(route.bytes, user, frames)
            if room < 0:
                return

    def _send(self, parcel: Parcel) -> None:
        session = parcel.session
        if session is not None and (session.closed or session.stalled):
            self._hold_back(session, parcel)
            return
        try:
            self._socket.send_multipart([parcel.route, *parcel.frames], zmq.NOBLOCK)
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
        if parcel.latest is not None:
            for index, older in enumerate(session.stalled):
                if older.latest == parcel.latest:
                    session.stalled_bytes += parcel.size - older.size
                    session.stalled[index] = parcel
                    return
        session.stalled.append(parcel)
        session.stalled_bytes += parcel.size
        self._stalled.add(session)
        if session.stalled_bytes > MAX_STALLED_BYTES:
            for held in list(session.stalled):
                self._engine.undelivered(held, gone=False)
            self._stalled.discard(session)
            self._engine.drop_slow(session)

    def _send_stalled(self, session: Session) -> None:
        while session.stalled:
            parcel = session.stalled[0]
            try:
                self._socket.send_multipart([parcel.route, *parcel.frames], zmq.NOBLOCK)
            except zmq.Again:
                return
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                for held in list(session.stalled):
                    self._engine.undelivered(held, gone=True)
                break
            session.stalled.popleft()
            session.stalled_bytes -= parcel.size
        self._stalled.discard(session)

    def close(self) -> None:
        """Close the sockets; what was acknowledged stays on disk, clients come back to the next start."""
        self._socket.close()
        self._zap.close()
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()

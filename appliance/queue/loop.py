"""What the broker's process and the gate's have in common: a thread that polls ROUTER sockets, and who may connect to
them.

asyncio sockets would cost about half of the throughput.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterable, Mapping

import zmq

from appliance import notify
from appliance.queue.auth import Admits, KeyRing, ZapHandler, serve_curve
from appliance.queue.keys import Keys
from appliance.queue.sockets import Socket

log = logging.getLogger(__name__)

STUCK_S = 60.0
"""A turn that takes longer than this has met a disk that will not come back; the restart recovers."""

RETRY_S = (0.001, 0.02)
"""How soon a peer that does not read is tried again, and how rarely in the end: libzmq does not say when it reads."""


class Patience:
    """When to try peers again that do not read: soon, and while nothing moves ever later."""

    def __init__(self) -> None:
        self.seconds = RETRY_S[0]

    def tried(self, *, moved: bool) -> None:
        """Hear whether a peer has taken anything."""
        self.seconds = RETRY_S[0] if moved else min(RETRY_S[1], 2 * self.seconds)


class Loop:
    """`run` works until `stop`, which may be called from a signal handler or another thread."""

    def __init__(self, ring: KeyRing, domains: Mapping[str, Admits]) -> None:
        self.turns = 0
        """How often the loop went round; it never rests for longer than a second."""
        self._ring = ring
        self._stopping = False
        self._reload = False
        self._named: frozenset[object] = frozenset()
        """The sockets of which the last poll said that something can be read: nobody else is asked."""
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._context: zmq.Context[Socket] = zmq.Context()
        self._zap = ZapHandler(self._context, domains)
        self._poller = zmq.Poller()
        self._poller.register(self._zap.socket, zmq.POLLIN)
        self._poller.register(self._wake_out.fileno(), zmq.POLLIN)

    def _router(
        self, endpoints: Iterable[str], keys: Keys, domain: str, *, max_body: int, rcvhwm: int, sndhwm: int
    ) -> Socket:
        """Return a ROUTER that lets in whom `domain` admits; it is polled from now on."""
        router = self._context.socket(zmq.ROUTER)
        serve_curve(router, keys, domain)
        router.router_mandatory = True
        router.ipv6 = True
        router.linger = 500
        router.maxmsgsize = max_body + 2**16
        router.rcvhwm, router.sndhwm = rcvhwm, sndhwm
        router.backlog = 4096
        router.handshake_ivl = 5000
        # Only finds dead TCP peers; that the application lives is said by our own heartbeats.
        router.heartbeat_ivl = 5000
        router.heartbeat_timeout = 15000
        for endpoint in endpoints:
            router.bind(endpoint)
        self._poller.register(router, zmq.POLLIN)
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
        """Serve until stopped. Raises what ends the process."""
        while not self._stopping:
            self.turns += 1
            self._wait(min(self._rest_s(), 1.0))
            asked, self._reload = self._reload, False
            if self._ring.refresh(always=asked):
                self._keys_changed()
            self._zap.pass_time()
            if self._zap.socket in self._named:
                self._zap.answer_all()
            self._turn()
        self._part()

    def _wait(self, seconds: float) -> None:
        self._named = frozenset([ready for ready, _ in self._poller.poll(int(seconds * 1000) + 1 if seconds else 0)])
        if self._wake_out.fileno() in self._named:
            self._wake_out.recv(4096)

    def _rest_s(self) -> float:
        """Return for how long there is nothing to do if no message comes."""
        raise NotImplementedError

    def _turn(self) -> None:
        """Do what there is to do; never wait."""
        raise NotImplementedError

    def _part(self) -> None:
        """Do what is left to do after the last turn."""

    def _keys_changed(self) -> None:
        """Hear that the key list is another one."""

    def close(self) -> None:
        """Close what is left of the sockets."""
        self._zap.close()
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()


async def serve(loop: Loop, status: str) -> None:
    """Run the loop in a thread of its own until cancelled, and wait for it whatever happens."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection is one
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, loop.reload_keys)
    thread = asyncio.ensure_future(asyncio.to_thread(loop.run))
    watch = asyncio.create_task(_watch(loop))
    notify.ready(status)
    try:
        await asyncio.wait([thread, watch], return_when=asyncio.FIRST_COMPLETED)
        if not thread.done():
            os._exit(1)  # it hangs and cannot be joined
    finally:
        watch.cancel()
        loop.stop()
        await thread


async def _watch(loop: Loop) -> None:
    """Return when the loop has not gone round for STUCK_S."""
    while True:
        turns = loop.turns
        await asyncio.sleep(STUCK_S)
        if loop.turns == turns:
            log.critical("the loop has been stuck for %.0f s; the process ends", STUCK_S)
            return

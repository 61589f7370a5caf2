"""Who may do what: the known CURVE keys, and the ZAP handler (ZeroMQ RFC 27) that lets in those and no other."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import zmq
from zmq.utils import z85

from appliance.contracts.access import Access, AccessList
from appliance.errors import NOT_DECODED, InvalidInput
from appliance.queue.address import covers
from appliance.queue.keys import Keys
from appliance.queue.sparing import Sparing

log = logging.getLogger(__name__)

Right = Literal["publish", "consume", "emit", "subscribe", "call", "serve", "administer", "relay"]
ZAP_ENDPOINT = "inproc://zeromq.zap.01"
MAX_REMEMBERED = 20_000


class Grant:
    """What one key may do; answers are remembered, since the same few names come again and again."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.name = access.name
        self._answers: dict[tuple[Right, str], bool] = {}

    def allows(self, right: Right, asked: str) -> bool:
        """Return whether the key has the right for a canonical address, or for all that a pattern stands for."""
        answer = self._answers.get((right, asked))
        if answer is None:
            if len(self._answers) >= MAX_REMEMBERED:
                self._answers.clear()
            patterns: tuple[str, ...] = getattr(self.access.rights, right)
            answer = self._answers[right, asked] = covers(patterns, asked)
        return answer


class KeyRing:
    """The known keys, by public key in Z85. A list that does not validate changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._problem = ""
        self._grants: dict[str, Grant] = {}
        self.routes: frozenset[str] = frozenset()
        """The clusters (`lan/cluster`) whose messages are taken in, for the bridge."""
        self.reload()

    def reload(self) -> None:
        """Read the list; raise InvalidInput where it cannot be used, and keep the keys as they were."""
        stamp, self._seen = self._stamp(), None  # what could not even be read is tried again
        try:
            content = self._path.read_bytes()
            self._seen = stamp
            listed = msgspec.json.decode(content, type=AccessList)
        except (OSError, *NOT_DECODED) as error:
            raise InvalidInput(f"The key list {self._path} cannot be used: {error}.") from error
        if listed.version != 1:
            raise InvalidInput(f"The key list {self._path} has version {listed.version}, this broker reads 1.")
        grants = {}
        for access in listed.entries:
            if access.public_key in grants:
                raise InvalidInput(f"The key list {self._path} names a key twice, for {access.name} too.")
            known = self._grants.get(access.public_key)
            grants[access.public_key] = known if known is not None and known.access == access else Grant(access)
        self._grants = grants
        self.routes = frozenset(listed.routes)

    def refresh(self, *, always: bool = False) -> bool:
        """Read the list again when its file is another one now, or `always`; return whether it was read."""
        if not always and self._stamp() == self._seen:
            return False
        try:
            self.reload()
        except InvalidInput as error:
            if always or error.message != self._problem:
                log.error("the key list stays as it was: %s", error)
            self._problem = error.message
            return False
        self._problem = ""
        log.info("the key list was read: %d keys", len(self._grants))
        return True

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def may(self, name: str, right: Right, address: str) -> bool:
        """Return whether any key of that name has the right."""
        return any(grant.allows(right, address) for grant in self._grants.values() if grant.name == name)

    def find(self, public_key: str, *, outside: bool) -> Grant | None:
        """Return what the key may do, None for a key that is not listed or comes the wrong way in."""
        grant = self._grants.get(public_key)
        return grant if grant is not None and grant.access.outside == outside else None


Admits = Callable[[str], bool]
"""Whether the holder of a public key (Z85) may connect."""


class ZapHandler:
    """Answers libzmq's question for each new connection: 200 with the public key as User-Id, or 400.

    `domains` says for each ZAP domain (a socket's, see serve_curve) whom it admits. Its socket must be bound before any
    CURVE socket of the same context; with no handler libzmq would let everyone in.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", domains: Mapping[str, Admits]) -> None:
        self._domains = domains
        self._sparing = Sparing(log, time.monotonic)
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(ZAP_ENDPOINT)

    def pass_time(self) -> None:
        """Tell of the strangers who were not told of one by one. To be called every now and then."""
        self._sparing.pass_time()

    def answer_all(self) -> None:
        """Answer every question that waits."""
        while True:
            try:
                question = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._answer(question)

    def _answer(self, question: list[bytes]) -> None:
        route, empty, version, request, domain, address, _identity, mechanism, *credentials = question
        user = ""
        admits = self._domains.get(domain.decode(errors="replace"))
        if version == b"1.0" and mechanism == b"CURVE" and admits is not None and len(credentials) == 1:
            public_key = z85.encode(credentials[0]).decode()
            if admits(public_key):
                user = public_key
            else:
                where = address.decode(errors="replace")
                self._sparing.tell(logging.WARNING, "refused the key %s from %s", public_key, where)
        status = (b"200", b"OK") if user else (b"400", b"unknown key")
        self.socket.send_multipart([route, empty, b"1.0", request, *status, user.encode(), b""])

    def close(self) -> None:
        """Stop answering; connections that are open stay."""
        self.socket.close()


def serve_curve(socket: "zmq.Socket[bytes]", keys: Keys, domain: str) -> None:
    """Make `socket` a CURVE server whose connections the ZapHandler decides on, by the rule of `domain`."""
    socket.curve_server = True
    socket.curve_secretkey = keys.secret.encode()
    socket.zap_domain = domain.encode()


def join_curve(socket: "zmq.Socket[bytes]", keys: Keys, server_key: str) -> None:
    """Make `socket` a CURVE client that only speaks to the holder of `server_key`."""
    socket.curve_secretkey = keys.secret.encode()
    socket.curve_publickey = keys.public.encode()
    socket.curve_serverkey = server_key.encode()

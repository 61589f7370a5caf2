"""Who answers from where this runs: reads probes as JSON, `[address, protocol, port]` each, and writes the numbers of
those that got through; the standard library is enough for it.

A probe got through when anything came back: a connection, an answer, or a refusal by the kernel at the other end (a
reset, or ICMP's port unreachable). A firewall that drops says nothing, and neither does whoever takes a datagram in
silence: on such a port UDP cannot be told apart. Every probe has a socket of its own, all open at once; what had no
answer is asked again until a whole round brings nothing.
"""

import contextlib
import errno
import json
import resource
import selectors
import socket
import sys
import time

ROUND_S = 1.0
LEAST_ROUNDS = 2

QUESTION = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01"
"""One that a name server answers by itself (RFC 1035): the address of `localhost`."""

Probe = tuple[str, str, int]


def asking(address: str, protocol: str, port: int) -> socket.socket | None:
    """Return a socket that has asked, or None where the kernel here did not let it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    opened.setblocking(False)
    with contextlib.suppress(OSError):
        if protocol == "udp":
            opened.connect((address, port))
            opened.send(QUESTION)
            return opened
        if opened.connect_ex((address, port)) == errno.EINPROGRESS:
            return opened
    opened.close()
    return None


def answered(asked: socket.socket) -> bool:
    """Return whether what woke this socket came from the other end."""
    if asked.type == socket.SOCK_STREAM:
        return asked.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNREFUSED)
    try:
        return bool(asked.recv(2048))
    except OSError as error:
        return error.errno == errno.ECONNREFUSED


def answers(probes: dict[int, Probe]) -> set[int]:
    """Return which probes get an answer within one round."""
    found: set[int] = set()
    sockets: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as waiting:
        for number, probe in probes.items():
            opened = asking(*probe)
            if opened is not None:
                sockets[number] = opened
                waiting.register(opened, selectors.EVENT_WRITE if probe[1] == "tcp" else selectors.EVENT_READ, number)
        until = time.monotonic() + ROUND_S
        while waiting.get_map() and time.monotonic() < until:
            for key, _ in waiting.select(max(0.0, until - time.monotonic())):
                if answered(sockets[key.data]):
                    found.add(key.data)
                waiting.unregister(key.fileobj)
    for opened in sockets.values():
        opened.close()
    return found


def through(probes: list[Probe]) -> list[int]:
    """Return the numbers of the probes that got through."""
    left = dict(enumerate(probes))
    rounds = 0
    while True:
        rounds += 1
        found = answers(left)
        left = {number: probe for number, probe in left.items() if number not in found}
        if rounds >= LEAST_ROUNDS and not found:
            return [number for number in range(len(probes)) if number not in left]


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    json.dump(through([(address, protocol, port) for address, protocol, port in json.load(sys.stdin)]), sys.stdout)

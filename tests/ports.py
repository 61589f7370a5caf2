"""Ports of loopback for the servers of tests."""

import itertools
import random
import socket

PORTS = range(20_000, 32_768)
"""Below those that Linux gives to connections (ip_local_port_range): whoever tries to reach a server that is away for a
while could be given its port, and even be connected with himself (RFC 9293, simultaneous open).
"""
_turns = itertools.cycle(random.sample(PORTS, len(PORTS)))


def free_port() -> int:
    """Return another TCP port each time, which nobody has now and nobody gets who does not ask for it."""
    for port in _turns:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("a cycle has no end")

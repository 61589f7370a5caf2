"""The ports that tests give to servers."""

import socket
from pathlib import Path

from tests import ports

GIVEN_TO_CONNECTIONS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_no_connection_is_given_the_port_of_a_server_and_no_server_that_of_another() -> None:
    found = [ports.free_port() for _ in range(100)]
    assert len(set(found)) == len(found)
    assert max(found) < int(GIVEN_TO_CONNECTIONS.read_text().split()[0])


def test_a_port_that_somebody_has_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", ports.free_port())) as busy:
        assert busy.getsockname()[1] not in {ports.free_port() for _ in range(len(ports.PORTS))}

"""Ports of this computer that lead to the machine."""

import socket

import pytest

from scripts.virtual import ports
from scripts.virtual.errors import NoFreePort


def test_a_busy_port_is_chosen_around() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as busy:
        taken = busy.getsockname()[1]
        assert ports.free_port(taken) > taken


def test_a_busy_udp_port_is_chosen_around() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as busy:
        busy.bind((ports.LOOPBACK, 0))
        taken = busy.getsockname()[1]
        assert ports.free_port(taken, protocol="udp") > taken


def test_the_url_names_the_port_that_was_chosen() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as busy:
        taken = busy.getsockname()[1]
        forwards = ports.choose(https=taken)
    assert forwards.outside_url == f"https://127.0.0.1:{forwards.https.host_port}/"
    assert forwards.https.host_port != taken
    assert forwards.https.argument == f"hostfwd=tcp:127.0.0.1:{forwards.https.host_port}-:443"


def test_no_free_port_is_an_error_that_names_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_TRIES", 1)
    with socket.create_server((ports.LOOPBACK, 0)) as busy:
        taken = busy.getsockname()[1]
        with pytest.raises(NoFreePort, match=str(taken)):
            ports.free_port(taken)

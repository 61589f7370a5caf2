"""LANs are segments of their own: who is plugged into one reaches it, and nobody else does."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from scripts.labs import topology
from scripts.labs.place import Place
from scripts.labs.session import Lab
from tests.lab import plans

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 7000), timeout=2)"
LISTEN = """
import socket, sys
server = socket.create_server((sys.argv[1], 7000))
print("listens", flush=True)
while True:
    server.accept()
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    plan = topology.load(Path(__file__).with_name("two_boxes.toml"))
    bare = tuple(msgspec.structs.replace(machine, cmdline=plans.BARE) for machine in plan.machine)
    with Lab(msgspec.structs.replace(plan, machine=bare)) as running:
        for name, card, lan in (
            ("first", "enp0s2", "uplink"),
            ("first", "enp0s3", "cluster"),
            ("second", "lan0", "cluster"),
        ):
            box = running.machine(name)
            box.run(["ip", "link", "set", card, "up"])
            box.run(["ip", "address", "add", f"{box.address(lan)}/24", "dev", card])
        yield running


def reaches(place: Place, python: str, address: str) -> bool:
    """Return whether `place` can connect to port 7000 of `address`."""
    return place.succeeds([python, "-c", CONNECT, address])


def test_machines_reach_each_other_on_the_lan_they_share(lab: Lab) -> None:
    first, second = lab.machine("first"), lab.machine("second")
    server = second.popen(["python3", "-c", LISTEN, second.address("cluster")], stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server:
        assert server.stdout.readline() == "listens\n"
        assert reaches(first, "python3", second.address("cluster"))
        assert not reaches(lab.host("outside"), sys.executable, second.address("cluster"))
        server.terminate()


def test_an_outside_host_reaches_only_the_uplink(lab: Lab) -> None:
    first, outside = lab.machine("first"), lab.host("outside")
    server = first.popen(["python3", "-c", LISTEN, ""], stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server:
        assert server.stdout.readline() == "listens\n"
        assert reaches(outside, sys.executable, first.address("uplink"))
        assert not reaches(outside, sys.executable, first.address("cluster"))
        server.terminate()


def test_a_machine_that_is_not_to_start_is_off_until_it_is_started(lab: Lab) -> None:
    spare = lab.machine("spare")
    assert spare.view().state == "off"
    spare.start()
    assert spare.run(["systemctl", "is-system-running"]).stdout == "running\n"
    assert spare.run(["ip", "-brief", "link"]).stdout.split()[0] == "lo"


def test_a_lan_reaches_no_other_lan() -> None:
    with Lab(plans.only_hosts()) as lab:
        west, east, both = lab.host("west"), lab.host("east"), lab.host("bridge")
        listen = "import socket; s = socket.create_server(('', 7000)); print('listens', flush=True); s.accept()"
        server = east.popen([sys.executable, "-c", listen], stdout=subprocess.PIPE)
        assert server.stdout is not None
        with server:
            assert server.stdout.readline() == "listens\n"
            connect = "import socket, sys; socket.create_connection((sys.argv[1], 7000), timeout=2)"
            assert not west.succeeds([sys.executable, "-c", connect, east.address()])
            assert both.succeeds([sys.executable, "-c", connect, east.address()])

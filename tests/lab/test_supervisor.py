"""The supervisor on a whole box: it adopts what is there, repairs what is damaged, and takes configurations or
refuses them.
"""

import contextlib
import http.client
import signal
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from appliance import config
from tests.lab.box import Box, started
from tests.lab.supervised import apply, cursor, plan, processes, settled, steps_since, wait_settled
from tests.lab.systems import wait_until


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that is ready."""
    with started(config.Config(), set_up=False) as box:
        yield box


def test_once_ready_there_is_nothing_to_do(box: Box) -> None:
    wait_settled(box)
    assert plan(box) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_supervisor_that_starts_anew_adopts_what_is_there(box: Box, number: int) -> None:
    wait_settled(box)
    before, place = processes(box), cursor(box)
    old = box.machine.main_pid("alpha-ren-supervisor.service")
    with contextlib.closing(open_connection(box)) as connection:
        box.machine.kill(old, number)
        wait_until(
            "another supervisor answers",
            lambda: (
                answers(connection)
                and box.machine.succeeds(["alpha-ren", "status"])
                and box.machine.main_pid("alpha-ren-supervisor.service") not in (0, old)
            ),
            60.0,
        )
        wait_until("the machine is as it should be", lambda: answers(connection) and settled(box), 60.0)
        assert answers(connection)
    assert processes(box) == before
    # What this kernel cannot do is found out anew by every supervisor.
    assert [step for step in steps_since(box, place) if "wireguard" not in step] == []


def open_connection(box: Box) -> http.client.HTTPSConnection:
    """A connection through 443 that is not made anew once it has ended."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = box.machine.published(443)
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
    connection.connect()
    connection.auto_open = 0
    return connection


def answers(connection: http.client.HTTPSConnection) -> bool:
    """Whether there is an answer on it; asked in time, it is kept open by the proxy."""
    connection.request("GET", "/ready")
    return bool(connection.getresponse().read())


DAMAGE: list[tuple[str, list[str]]] = [
    ("make veth arsrv-1/cluster", ["ip", "link", "del", "ar-c257"]),
    ("change ruleset dns", ["nsenter", "--net=/run/netns/dns", "nft", "flush", "ruleset"]),
    ("make bridge dmz", ["ip", "link", "del", "dmz"]),
    ("make route armail/default", ["nsenter", "--net=/run/netns/armail", "ip", "route", "del", "default"]),
    ("start unit alpha-ren-portal.service", ["systemctl", "stop", "alpha-ren-portal.service"]),
    ("start unit alpha-ren-armail.service", ["rm", "/run/systemd/system/alpha-ren-armail.service"]),
    (
        "start unit alpha-ren-arhav.service",
        ["sh", "-c", "rm /run/systemd/system/alpha-ren-arhav.service; systemctl daemon-reload"],
    ),
    ("make file /run/alpha-ren/dns/unbound.conf", ["rm", "/run/alpha-ren/dns/unbound.conf"]),
    ("change file /run/alpha-ren/dns/resolv.conf", ["sh", "-c", "echo > /run/alpha-ren/dns/resolv.conf"]),
]


@pytest.mark.parametrize(("step", "command"), DAMAGE, ids=[step for step, _ in DAMAGE])
def test_damage_is_repaired_by_itself(box: Box, step: str, command: list[str]) -> None:
    wait_settled(box)
    place = cursor(box)
    box.machine.run(command)
    wait_until(step, lambda: any(each.startswith(step) for each in steps_since(box, place)))
    wait_settled(box)
    assert any(each.startswith(step) for repair in box.status()["repairs"] for each in repair["steps"])
    box.wait_ready()


def test_units_follow_a_namespace_that_was_replaced(box: Box) -> None:
    wait_settled(box)
    before = processes(box)
    box.machine.run(["sh", "-c", "umount -l /run/netns/arsrv-1 && rm /run/netns/arsrv-1"])
    unit = "alpha-ren-arsrv-1.service"
    wait_until("the server runs anew", lambda: box.machine.main_pid(unit) not in (0, before[unit]), 60.0)
    wait_settled(box)
    lives_in = box.machine.run(["stat", "-L", "-c", "%i", f"/proc/{box.machine.main_pid(unit)}/ns/net"]).stdout
    assert lives_in == box.machine.run(["stat", "-c", "%i", "/run/netns/arsrv-1"]).stdout
    after = processes(box)
    assert {name for name in after if after[name] != before[name]} == {unit}
    box.wait_ready()


def test_a_configuration_is_taken_and_one_that_is_not_valid_changes_nothing(box: Box) -> None:
    wait_settled(box)
    before = processes(box)
    apply(box, "[arsrv]\ncount = 3\n")
    wait_settled(box)
    now = processes(box)
    assert set(now) - set(before) == {"alpha-ren-arsrv-3.service"}
    assert {name: now[name] for name in ("alpha-ren-ardpx.service", "alpha-ren-queue.service")} == {
        name: before[name] for name in ("alpha-ren-ardpx.service", "alpha-ren-queue.service")
    }
    refused = box.machine.run(
        ["sh", "-c", "printf '[arsrv]\\ncuont = 1\\n' > /tmp/bad.toml; alpha-ren apply /tmp/bad.toml"], check=False
    )
    assert refused.returncode != 0
    assert "cuont" in refused.stdout + refused.stderr
    assert plan(box) == []
    apply(box, "[arsrv]\ncount = 2\n")
    wait_settled(box)
    assert set(processes(box)) == set(before)
    assert "arsrv-3" not in box.machine.run(["ls", "/run/netns"]).stdout


def test_a_file_that_went_bad_leaves_the_last_good_one_in_force(box: Box) -> None:
    apply(box, "[arsrv]\ncount = 2\n")
    wait_settled(box)
    try:
        box.machine.run(
            ["sh", "-c", "echo nonsense > /var/lib/alpha-ren/config.toml; systemctl restart alpha-ren-supervisor"]
        )
        wait_settled(box)
        status: dict[str, Any] = box.status()
        assert status["config_in_force"] == "last-good"
        assert status["last_error"]["code"] == "invalid-config"
    finally:
        apply(box, "")
    assert box.status()["config_in_force"] == "file"


def test_who_is_known_to_no_other_machine_has_no_next_key(box: Box) -> None:
    before = processes(box)
    answer = box.machine.run(["alpha-ren", "queue", "rotate-key", "--bridge", "--yes"], check=False)
    assert answer.returncode != 0
    assert answer.stderr.startswith("not-found: "), answer.stderr
    assert processes(box) == before


def test_who_may_speak_to_whom_is_what_the_rules_let_through(box: Box) -> None:
    """A few by hand; every pair has its own test with the depth of the firewall."""
    wait_settled(box)
    assert reaches(box, "arsrv-1", "10.156.16.2", 7156)
    assert reaches(box, "armail", "10.156.16.2", 7156)
    assert reaches(box, "arhav", "10.156.16.1", 443)
    assert reaches(box, "arsrv-1", "fd9c:156:0:1::5", 53)
    assert not reaches(box, "arsrv-1", "10.156.17.2", 7180)
    assert not reaches(box, "portal", "10.156.16.17", 7190)
    assert not reaches(box, "arsrv-1", "10.156.16.1", 443)
    assert not reaches(box, "portal", box.outside.address(), 80)


CONNECT = """
import socket, sys
with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET) as probe:
    probe.settimeout(1)
    sys.exit(probe.connect_ex((sys.argv[1], int(sys.argv[2]))) != 0)
"""


def reaches(box: Box, namespace: str, address: str, port: int) -> bool:
    """Whether a TCP connection can be made from a namespace."""
    argv = ["nsenter", f"--net=/run/netns/{namespace}", "python3", "-c", CONNECT, address, str(port)]
    return bool(box.machine.succeeds(argv))

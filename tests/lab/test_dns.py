"""Names in a whole box: instances, members as they come and go, and the outside's names through its resolvers."""

import ipaddress
import signal
import struct
from collections.abc import Iterator

import pytest

from appliance import config
from tests.lab.box import Box, started
from tests.lab.systems import wait_until

ZONE = "main.lan.alpha-ren.internal"
V4 = "10.156.16.5"
V6 = "fd9c:156:0:1::5"
HOOKS = f"_hooks._tcp.{ZONE}"
A, PTR, AAAA, SRV = 1, 12, 28, 33
NO_ERROR, NO_NAME = 0, 3

ASK = """
import socket, sys
server, question, kind = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in server else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as asking:
    asking.settimeout(5)
    asking.connect((server, 53))
    asking.sendall(len(question).to_bytes(2, "big") + question if kind == "tcp" else question)
    answer = asking.recv(4096)
    print((answer[2:] if kind == "tcp" else answer).hex())
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that is ready."""
    with started(config.Config(), set_up=False) as box:
        yield box


def name_at(answer: bytes, at: int) -> tuple[str, int]:
    """Return the name at a place in an answer (RFC 1035, 4.1.4), and the place after it."""
    labels: list[str] = []
    while length := answer[at]:
        if length >= 0xC0:
            rest, _ = name_at(answer, struct.unpack_from(">H", answer, at)[0] & 0x3FFF)
            return ".".join([*labels, rest]), at + 2
        labels.append(answer[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1


def value(answer: bytes, at: int, kind: int, length: int) -> str:
    """Return the data of a record as text."""
    if kind in (A, AAAA):
        return str(ipaddress.ip_address(answer[at : at + length]))
    if kind == SRV:
        priority, _, port = struct.unpack_from(">HHH", answer, at)
        return f"{priority} {port} {name_at(answer, at + 6)[0]}"
    return name_at(answer, at)[0]


def ask(
    box: Box, name: str, kind: int, *, instance: str = "arsrv-1", server: str = V4, over: str = "udp"
) -> tuple[int, set[str]]:
    """Return the response code and the records that an instance gets as an answer."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
    argv = ["ip", "netns", "exec", instance, "python3", "-c", ASK, server, question.hex(), over]
    answer = bytes.fromhex(box.machine.run(argv).stdout)
    at = name_at(answer, 12)[1] + 4
    records = set()
    for _ in range(struct.unpack_from(">H", answer, 6)[0]):
        at = name_at(answer, at)[1]
        found, _, _, length = struct.unpack_from(">HHIH", answer, at)
        if found == kind:
            records.add(value(answer, at + 10, kind, length))
        at += 10 + length
    return answer[3] & 15, records


def servers(box: Box) -> set[str]:
    """Return the servers that take webhooks, as DNS has them."""
    return {record.split()[2].partition(".")[0] for record in ask(box, HOOKS, SRV)[1]}


@pytest.mark.parametrize(("server", "over"), [(V4, "udp"), (V4, "tcp"), (V6, "udp")])
def test_every_instance_has_a_name(box: Box, server: str, over: str) -> None:
    assert ask(box, f"queue.{ZONE}", A, server=server, over=over) == (NO_ERROR, {"10.156.16.2"})
    assert ask(box, f"armail.{ZONE}", AAAA, server=server, over=over) == (NO_ERROR, {"fd9c:156::8"})


def test_an_address_leads_back_to_its_name(box: Box) -> None:
    assert ask(box, "1.17.156.10.in-addr.arpa", PTR) == (NO_ERROR, {f"arsrv-1.{ZONE}"})


def test_the_dmz_asks_through_the_gateway(box: Box) -> None:
    assert ask(box, f"queue.{ZONE}", A, instance="armail") == (NO_ERROR, {"10.156.16.2"})


def test_a_name_nobody_has_does_not_exist(box: Box) -> None:
    assert ask(box, f"nobody.{ZONE}", A) == (NO_NAME, set())
    assert ask(box, "queue.other.lan.alpha-ren.internal", A) == (NO_NAME, set())


def test_the_outsides_names_come_from_its_resolvers(box: Box) -> None:
    assert ask(box, "outside.test", A) == (NO_ERROR, {box.outside.address()})


def test_members_have_addresses_and_take_webhooks(box: Box) -> None:
    wait_until("both servers are named", lambda: servers(box) == {"arsrv-1", "arsrv-2"})
    assert ask(box, f"arsrv-2.members.{ZONE}", A) == (NO_ERROR, {"10.156.17.2"})
    priorities = sorted(int(record.split()[0]) for record in ask(box, HOOKS, SRV)[1])
    assert priorities == [10, 20]


def test_a_server_that_is_down_is_not_named_until_it_is_back(box: Box) -> None:
    box.keep_down_when_killed("arsrv-2")
    box.kill("arsrv-2", signal.SIGKILL)
    wait_until("only the other is named", lambda: servers(box) == {"arsrv-1"})
    box.let_restart("arsrv-2")
    wait_until("both are named again", lambda: servers(box) == {"arsrv-1", "arsrv-2"})
    box.wait_ready()


def test_a_restarted_resolver_knows_the_members_at_once(box: Box) -> None:
    box.machine.run(["systemctl", "stop", box.unit("dns")])
    box.machine.run(["systemctl", "restart", "alpha-ren-dns-unbound.service"])
    assert servers(box) == {"arsrv-1", "arsrv-2"}
    box.machine.run(["systemctl", "start", box.unit("dns")])
    box.wait_ready()


def test_the_outside_gets_no_answer(box: Box) -> None:
    argv = ["python3", "-c", ASK, box.address, "00" * 12, "udp"]
    assert "TimeoutError" in box.outside.run(argv, check=False).stderr

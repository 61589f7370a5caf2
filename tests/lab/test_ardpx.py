"""The way into a whole box: TLS, redirects, reloads under load, and an uplink that lost its client."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from appliance import config
from tests.lab.box import Box, started
from tests.lab.systems import post, wait_until

SERVERS = ("arsrv-1", "arsrv-2")
NET_BIND = 1 << 10
"""CAP_NET_BIND_SERVICE, capabilities(7)."""

SHAKE = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.minimum_version = context.maximum_version = ssl.TLSVersion[sys.argv[2]]
context.set_ciphers("ALL:@SECLEVEL=0")
context.set_alpn_protocols(["h2", "http/1.1"])
try:
    with context.wrap_socket(socket.create_connection((sys.argv[1], 443), 10)) as tls:
        print(tls.version(), tls.selected_alpn_protocol())
except (ssl.SSLError, ConnectionError):
    print("refused")
"""

# Asks without a pause until its standard input ends.
HAMMER = """
import http.client, ssl, sys, threading
context = ssl._create_unverified_context()
enough = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), enough.set())).start()
print("hammering", flush=True)
answers = []
while not enough.is_set():
    connection = http.client.HTTPSConnection(sys.argv[1], timeout=20, context=context)
    connection.request("GET", "/hooks/nobody")
    answers.append(connection.getresponse().status)
    connection.close()
print(*sorted(set(answers)))
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that is ready, with an outside host beside it."""
    with started(config.Config(), set_up=False) as box:
        yield box


@pytest.mark.parametrize(
    ("version", "said"), [("TLSv1_1", "refused"), ("TLSv1_2", "TLSv1.2 h2"), ("TLSv1_3", "TLSv1.3 h2")]
)
def test_only_current_tls_is_spoken(box: Box, version: str, said: str) -> None:
    assert box.outside.run([sys.executable, "-c", SHAKE, box.address, version]).stdout.strip() == said


def test_plain_http_is_sent_to_https(box: Box) -> None:
    output = box.outside.run(["curl", "-s", "-D", "-", "-o", "/dev/null", f"http://{box.address}/portal/?a=1"]).stdout
    assert output.split()[1] == "308"
    assert f"location: https://{box.address}/portal/?a=1" in output.lower()


@contextmanager
def hammered(box: Box) -> Iterator[None]:
    """Ask the servers something all the time from outside; in the end one has to have answered every request."""
    argv = [sys.executable, "-c", HAMMER, box.address]
    with box.outside.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hammer:
        assert hammer.stdin is not None
        assert hammer.stdout is not None
        assert hammer.stdout.readline() == "hammering\n"
        yield
        hammer.stdin.close()
        assert hammer.stdout.read().split() == ["405"]
    assert hammer.returncode == 0


def apply(box: Box, settings: config.Config) -> None:
    document = msgspec.toml.encode(settings).decode()
    box.machine.run(["sh", "-c", "cat > /tmp/new.toml && alpha-ren apply /tmp/new.toml"], stdin=document)
    box.wait_ready()


def test_a_reload_under_load_refuses_nobody(box: Box) -> None:
    with hammered(box):
        for _ in range(3):
            box.machine.run(["systemctl", "reload", box.unit("ardpx")])


def test_a_server_joins_and_leaves_under_load(box: Box) -> None:
    with hammered(box):
        apply(box, config.Config(arsrv=config.Arsrv(count=3)))
        assert "server arsrv-3 10.156.17.3:7180" in box.machine.run(["cat", "/run/alpha-ren/ardpx/haproxy.cfg"]).stdout
        apply(box, config.Config())
    assert "arsrv-3" not in {unit["instance"] for unit in box.status()["units"]}


def test_with_no_server_up_the_sender_is_told_to_come_back(box: Box) -> None:
    for server in SERVERS:
        box.keep_down_when_killed(server)
        box.kill(server, signal.SIGKILL)
    answer = post(box.outside, box.hook("anything"), "{}")
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert {"code", "message", "hint"} <= set(answer.json())
    for server in SERVERS:
        box.let_restart(server)
    wait_until("a server answers", lambda: post(box.outside, box.hook("anything"), "{}").status == 404)
    box.wait_ready()


def test_the_lease_gives_the_box_its_resolvers(box: Box) -> None:
    lease = json.loads(box.machine.run(["cat", "/run/alpha-ren/ardpx/lease.json"]).stdout)
    assert lease["dhcp"]["addresses"] == [f"{box.address}/24"]
    [resolver] = lease["dhcp"]["resolvers"]
    assert f"forward-addr: {resolver}\n" in box.machine.run(["cat", "/run/alpha-ren/dns/unbound.conf"]).stdout + "\n"


def test_ipv6_is_answered_where_the_uplink_has_it(box: Box) -> None:
    addresses = [address.partition("/")[0] for address in box.status()["uplink"] if ":" in address]
    assert addresses, "the LAN announces a prefix"
    assert post(box.outside, f"https://[{addresses[0]}]/hooks/anything", "{}").status == 404


def test_the_box_stays_reachable_without_its_dhcp_client(box: Box) -> None:
    unit = "alpha-ren-ardpx-uplink.service"
    first = box.machine.main_pid(unit)
    box.machine.kill(first, signal.SIGKILL)
    wait_until("the client is back", lambda: box.machine.main_pid(unit) not in (0, first))
    assert post(box.outside, box.hook("anything"), "{}").status == 404
    box.machine.run(["systemctl", "stop", unit])
    assert post(box.outside, box.hook("anything"), "{}").status == 404
    box.machine.run(["systemctl", "start", unit])
    box.wait_ready()


@pytest.mark.parametrize(
    ("unit", "user", "capabilities"),
    [("ardpx", "410", NET_BIND), ("ardpx-uplink", "414", 0), ("dns", "411", 0), ("dns-unbound", "411", NET_BIND)],
)
def test_what_the_outside_speaks_to_has_no_rights_to_lose(box: Box, unit: str, user: str, capabilities: int) -> None:
    lines = box.machine.run(["cat", f"/proc/{box.machine.main_pid(box.unit(unit))}/status"]).stdout.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status["Uid"].split() == [user] * 4
    assert int(status["CapEff"], 16) == capabilities
    assert status["Seccomp"].strip() == "2"

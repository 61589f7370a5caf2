"""The firmware's HAProxy with the rendered configuration, between a client and two servers that misbehave."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from appliance.ardpx import haproxy
from appliance.component import Exposure, Instance, Placed, Port
from appliance.contracts.service import Leg
from scripts.labs.place import Machine
from scripts.labs.session import Lab
from tests.lab import plans

HERE = "/run/proxy"
RECORD = f"{HERE}/record"
SERVERS = {"server-1": "127.0.1.1", "server-2": "127.0.1.2"}
PORT = 7000

ASK = """
import http.client, json, ssl, sys, time
asked = json.load(sys.stdin)
context = ssl._create_unverified_context()
answers = []
for _ in range(asked["times"]):
    connection = http.client.HTTPSConnection("127.0.0.1", 443, context=context, timeout=20)
    connection.putrequest(asked["method"], asked["path"])
    for name, value in asked["headers"]:
        connection.putheader(name, value)
    connection.putheader("Content-Length", "2" if asked["method"] == "POST" else "0")
    connection.endheaders()
    if asked["method"] == "POST":
        time.sleep(asked["pause_s"])
        connection.send(b"{}")
    answer = connection.getresponse()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    answers.append({"status": answer.status, "headers": headers, "body": answer.read().decode()})
    connection.close()
json.dump(answers, sys.stdout)
"""

LISTENS = "import socket; socket.create_connection(('127.0.0.1', 443), 1).close()"


class Proxy:
    """The proxy and its servers in a bare machine, for one test."""

    def __init__(self, machine: Machine, servers: subprocess.Popen[str]) -> None:
        self._machine = machine
        self._servers = servers

    def ask(
        self, method: str, path: str, *headers: tuple[str, str], times: int = 1, pause_s: float = 0
    ) -> list[dict[str, Any]]:
        """Return the answers to that many requests, each on a connection of its own; a body is sent after `pause_s`."""
        asked = {"method": method, "path": path, "headers": headers, "times": times, "pause_s": pause_s}
        output = self._machine.run(["python3", "-c", ASK], stdin=json.dumps(asked), deadline_s=60).stdout
        answers: list[dict[str, Any]] = json.loads(output)
        return answers

    def seen(self) -> list[dict[str, Any]]:
        """Return the requests that reached a server."""
        return [json.loads(line) for line in self._machine.run(["cat", RECORD]).stdout.splitlines()]

    def close(self, server: str) -> None:
        """Have a server refuse connections from now on."""
        assert self._servers.stdin is not None
        assert self._servers.stdout is not None
        self._servers.stdin.write(f"{server}\n")
        self._servers.stdin.flush()
        assert self._servers.stdout.readline() == "closed\n"


def configuration() -> str:
    return haproxy.render([server(name, address) for name, address in SERVERS.items()], HERE)


def server(name: str, address: str) -> Placed:
    instance = Instance(
        name=name,
        slot=1,
        legs=("cluster",),
        units=(),
        ports=(Port(name="http", number=PORT),),
        exposures=(
            Exposure(prefix="/", port="http", check="/health"),
            Exposure(prefix="/again/", port="http", check="/health", repeatable=True),
        ),
    )
    return Placed(component="server", instance=instance, legs={"cluster": Leg(v4=address, v6="::1")})


def put(machine: Machine, path: str, content: str) -> None:
    machine.run(["sh", "-c", f"cat > {path}"], stdin=content)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Lab(plans.one_box()) as lab:
        box = lab.machine("box")
        box.run(["mkdir", HERE])
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{HERE}/key.pem"]
        box.run(["openssl", "req", "-x509", *key, "-out", f"{HERE}/crt.pem", "-subj", "/CN=box", "-days", "2"])
        box.run(["sh", "-c", f"cat {HERE}/crt.pem {HERE}/key.pem > {HERE}/console.pem"])
        put(box, f"{HERE}/haproxy.cfg", configuration())
        put(box, f"{HERE}/backends.py", Path(__file__).with_name("backends.py").read_text(encoding="utf-8"))
        yield box


@pytest.fixture
def proxy(machine: Machine) -> Iterator[Proxy]:
    with ExitStack() as stack:
        put(machine, RECORD, "")
        places = [f"{name}={address}:{PORT}" for name, address in SERVERS.items()]
        argv = ["python3", f"{HERE}/backends.py", RECORD, *places]
        servers = stack.enter_context(machine.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        stack.callback(servers.kill)
        assert servers.stdout is not None
        assert servers.stdout.readline() == "ready\n"
        argv = ["env", f"CREDENTIALS_DIRECTORY={HERE}", "haproxy", "-W", "-f", f"{HERE}/haproxy.cfg"]
        running = stack.enter_context(machine.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        stack.callback(running.terminate)
        machine.wait_for("HAProxy listens", lambda: machine.succeeds(["python3", "-c", LISTENS]))
        yield Proxy(machine, servers)


def test_both_servers_are_used(proxy: Proxy) -> None:
    assert {answer["body"] for answer in proxy.ask("GET", "/", times=6)} == set(SERVERS)


def test_a_post_without_an_answer_is_not_sent_again(proxy: Proxy) -> None:
    answers = proxy.ask("POST", "/die", times=2)
    lost = [answer for answer in answers if answer["status"] != 200]
    assert [answer["status"] for answer in lost] == [502]
    assert json.loads(lost[0]["body"])["code"] == "no-answer"
    assert len(proxy.seen()) == 2, "each POST reached one server, once"


@pytest.mark.parametrize(
    ("method", "path", "pause_s"), [("GET", "/die", 0), ("POST", "/again/die", 0), ("POST", "/again/die", 0.3)]
)
def test_what_may_be_repeated_is_sent_again_under_the_same_identity(
    proxy: Proxy, method: str, path: str, pause_s: float
) -> None:
    assert {answer["status"] for answer in proxy.ask(method, path, times=4, pause_s=pause_s)} == {200}
    by_request: dict[str, list[str]] = {}
    for line in proxy.seen():
        by_request.setdefault(line["headers"]["x-alpha-ren-request"][0], []).append(line["server"])
    assert len(by_request) == 4
    assert ["server-1", "server-2"] in by_request.values()


def test_a_post_whose_connection_fails_goes_to_the_other_server(proxy: Proxy) -> None:
    proxy.close("server-2")
    answers = proxy.ask("POST", "/", times=10)
    assert [(answer["status"], answer["body"]) for answer in answers] == [(200, "server-1")] * 10


def test_with_no_server_the_sender_is_told_to_come_back(proxy: Proxy) -> None:
    for server in SERVERS:
        proxy.close(server)
    [answer] = proxy.ask("POST", "/")
    assert answer["status"] == 503
    assert int(answer["headers"]["retry-after"]) >= 1
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert {"code", "message", "hint"} <= set(json.loads(answer["body"]))
    assert answer["headers"]["strict-transport-security"], "what the proxy says by itself has the headers too"


def test_who_the_client_is_and_which_request_it_is_nobody_else_says(proxy: Proxy) -> None:
    forged = (
        ("X-Forwarded-For", "10.156.16.4"),
        ("X-Forwarded-Host", "evil"),
        ("Forwarded", "for=1"),
        ("X-Real-IP", "10.0.0.1"),
        ("X-Alpha-Ren-Request", "mine"),
        ("x-alpha-ren-Other", "mine"),
    )
    [answer] = proxy.ask("GET", "/", *forged)
    [seen] = proxy.seen()
    assert seen["headers"]["x-forwarded-for"] == ["127.0.0.1"]
    assert seen["headers"]["x-forwarded-proto"] == ["https"]
    assert not {"x-forwarded-host", "forwarded", "x-real-ip", "x-alpha-ren-other"} & set(seen["headers"])
    [identity] = seen["headers"]["x-alpha-ren-request"]
    assert identity != "mine"
    assert answer["headers"]["x-alpha-ren-request"] == identity


def test_security_headers_are_there_and_the_servers_name_is_not(proxy: Proxy) -> None:
    [answer] = proxy.ask("GET", "/")
    headers = answer["headers"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "server" not in headers


def test_a_head_that_is_too_large_is_refused(proxy: Proxy) -> None:
    [answer] = proxy.ask("GET", "/", ("X-Long", "x" * 15_000))
    assert answer["status"] == 400
    assert proxy.seen() == []

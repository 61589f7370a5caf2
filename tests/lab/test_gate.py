"""The way in for queue peers from outside: closed unless somebody is listed, and then open for those alone."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from appliance import config
from appliance.queue.keys import Keys, generate_keys, public_of
from tests.lab.box import PROVOKED as KILLED
from tests.lab.box import Box, started
from tests.lab.systems import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
KEYS = generate_keys()
PEER = config.QueuePeer(name="far/east", public_key=KEYS.public, publish=("in.*",))
# It is killed, and runs into its limit.
PROVOKED = (*KILLED, r"status=6/ABRT", r"Failed with result 'core-dump'", r"FATAL ERROR: OUT OF MEMORY")
OPEN = config.Config(queue=config.Queue(peers=(PEER,)))
SHUT = config.Config()


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that was ready before anybody was listed."""
    with started(SHUT, set_up=False) as box:
        broker = box.machine.main_pid(box.unit("queue"))
        assert not answers(box)
        apply(box, OPEN)
        wait_until("the gate is open", lambda: answers(box), 60)
        assert box.machine.main_pid(box.unit("queue")) == broker, "a new peer restarts nothing"
        yield box


def answers(box: Box) -> bool:
    """Return whether anything listens at 7156 for the outside host."""
    probe = f"import socket; socket.create_connection(('{box.address}', 7156), 2)"
    return box.outside.succeeds([sys.executable, "-c", probe])


def apply(box: Box, settings: config.Config) -> None:
    document = msgspec.toml.encode(settings).decode()
    box.machine.run(["sh", "-c", "cat > /tmp/new.toml && alpha-ren apply /tmp/new.toml"], stdin=document)


def peer(
    box: Box, *arguments: str, host: str = "", keys: Keys = KEYS, program: str = "queue_peer"
) -> subprocess.Popen[str]:
    """Start a peer on the outside host, and give it its secret."""
    server_key = box.machine.run(["head", "-n1", "/var/lib/alpha-ren/keys/queue-keys"]).stdout.strip()
    entrance = f"tcp://{host or box.address}:7156"
    argv = [sys.executable, "-m", f"tests.outside.{program}", entrance, server_key, keys.public, *arguments]
    process = box.outside.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert process.stdin is not None
    process.stdin.write(f"{keys.secret}\n")
    process.stdin.flush()
    return process


@contextmanager
def publishing(box: Box, address: str) -> Iterator[list[int]]:
    """Publish from outside for as long as the context lasts; then the list has how many were acknowledged."""
    acknowledged: list[int] = []
    with peer(box, address) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield acknowledged
        process.stdin.close()
        acknowledged.append(int(process.stdout.readline()))


def waiting(box: Box, address: str) -> int:
    """Return how many messages wait at an address of the box, once the broker says so."""
    answers: list[str] = []

    def asked() -> bool:
        answer = box.machine.run(["alpha-ren", "queue", "--json"], check=False)
        answers.append(answer.stdout)
        return answer.returncode == 0

    wait_until("the broker answers", asked)
    stats = json.loads(answers[-1])
    return sum(depth["ready"] for depth in stats["depths"] if depth["address"].rpartition("/")[2] == address)


def test_a_listed_peer_comes_in_on_both_families_with_its_rights(box: Box) -> None:
    six = next(address.partition("/")[0] for address in box.status()["uplink"] if ":" in address)
    for host, address in ((box.address, "in.four"), (f"[{six}]", "in.six")):
        with peer(box, address, "3", host=host) as process:
            out, _ = process.communicate(timeout=60)
        assert out.split() == ["ready", "3"]
        assert waiting(box, address) == 3


def test_nobody_else_comes_in(box: Box) -> None:
    secret = box.machine.run(["cat", "/var/lib/alpha-ren/keys/arsrv-1.secret"]).stdout.strip()
    for keys in (generate_keys(), Keys(public=public_of(secret), secret=secret)):
        with peer(box, "in.nobody", "1", keys=keys) as process:
            said = f"refused the key {keys.public}"
            wait_until("it is refused", lambda said=said: said in box.machine.logs(box.unit("gate")))  # type: ignore[misc]  # lambda
            process.kill()
            assert process.communicate()[0] == ""
    assert waiting(box, "in.nobody") == 0


def test_a_killed_gate_is_started_again_and_nothing_acknowledged_is_lost(box: Box) -> None:
    broker = box.machine.main_pid(box.unit("queue"))
    with publishing(box, "in.killed") as acknowledged:
        for _ in range(2):
            gate = box.machine.main_pid(box.unit("gate"))
            box.kill("gate", signal.SIGKILL)
            wait_until("it is back", lambda old=gate: box.machine.main_pid(box.unit("gate")) not in (0, old))  # type: ignore[misc]  # lambda
            before = waiting(box, "in.killed")
            wait_until("the peer is back", lambda before=before: waiting(box, "in.killed") > before, 60)  # type: ignore[misc]  # lambda
    assert waiting(box, "in.killed") == acknowledged[0]
    assert box.machine.main_pid(box.unit("queue")) == broker


def test_the_gate_follows_the_broker_to_its_next_start(box: Box) -> None:
    with publishing(box, "in.restarted") as acknowledged:
        box.machine.run(["systemctl", "restart", box.unit("queue")])
        before = waiting(box, "in.restarted")
        wait_until("the peer is back", lambda: waiting(box, "in.restarted") > before, 60)
    assert waiting(box, "in.restarted") == acknowledged[0]


def resident_mb(box: Box, instance: str) -> int:
    """Return how much memory an instance's main process has now."""
    status = box.machine.run(["cat", f"/proc/{box.machine.main_pid(box.unit(instance))}/status"]).stdout
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def test_a_message_without_end_costs_the_gate_alone(box: Box) -> None:
    broker, before = box.machine.main_pid(box.unit("queue")), resident_mb(box, "queue")
    with peer(box, "1000", str(3 * 384), program="endless_peer") as process:
        assert process.communicate(timeout=120)[0] == "gone\n"
    assert box.machine.main_pid(box.unit("queue")) == broker
    assert resident_mb(box, "queue") - before < 30
    with peer(box, "in.after", "3") as process:
        assert process.communicate(timeout=60)[0].split() == ["ready", "3"]


def test_the_gate_has_a_memory_of_its_own_and_reaches_nobody(box: Box) -> None:
    shown = box.machine.run(["systemctl", "show", "-P", "MemoryMax", "alpha-ren-gate.slice"]).stdout
    assert int(shown) == 384 * 2**20
    flows = box.machine.run(["alpha-ren", "firewall"]).stdout.splitlines()
    assert {line.split()[0] for line in flows if line.split()[1:4] == ["gate", "tcp", "7156"]} == {"any", "arvpn"}
    for address, port in (("10.156.16.2", 7156), (box.outside.address(), 80)):
        probe = f"import socket; socket.create_connection(('{address}', {port}), 2)"
        assert not box.machine.succeeds(["nsenter", "--net=/run/netns/gate", "python3", "-c", probe])


def test_when_nobody_is_listed_any_more_the_port_is_closed(box: Box) -> None:
    broker = box.machine.main_pid(box.unit("queue"))
    apply(box, SHUT)
    wait_until("the gate is shut", lambda: not answers(box), 60)
    # A way in that closes is on trial, since somebody may have come by it.
    box.machine.run(["alpha-ren", "confirm"])
    assert "gate" not in {unit["instance"] for unit in box.status()["units"]}
    assert box.machine.main_pid(box.unit("queue")) == broker
    assert box.machine.unexpected_errors(PROVOKED) == []

"""The queue's gate on the real kernel: who comes in by WireGuard and by the uplink, and what a peer's greed costs."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from appliance.arsrv.envelope import Envelope
from appliance.contracts.bridge import RoutesStatus, RouteStatus
from appliance.queue.keys import Keys, generate_keys
from appliance.queue.settings import BridgeSettings, RouteSettings
from scripts.virtual.image import REPOSITORY
from scripts.virtual.ports import LOOPBACK
from tests.console import ConsoleClient
from tests.lab.systems import wait_until
from tests.unit.queue.bridges import Side, clusters
from tests.vm.conftest import CLUSTER, VPN_ADDRESSES, Surroundings, patiently, post
from tests.vm.driver import OUTSIDE_HOST, VirtualMachine, lives
from tests.vm.tunnel import Tunnel, tunnel

GATE = "alpha-ren-gate.service"
HERE = "lan/main"
INNER_ENTRANCE = "tcp://10.156.0.9:7156"
WAYS = ("uplink", "tunnel", "tunnel over IPv6")
FLOW = "far"
BATCH = 20
GATE_MEMORY_MB = 64
ENDLESS = ("16000", "384")
SEEN_WITHIN_S = 120.0


class Way(NamedTuple):
    """A way to the gate: what a command there begins with, the entrance, and whom the gate sees."""

    inside: tuple[str, ...]
    entrance: str
    seen_as: str


@pytest.fixture(scope="module")
def road(machine: VirtualMachine, surroundings: Surroundings) -> Iterator[Tunnel]:
    """The place behind the tunnel."""
    box_key = machine.output("ip", "netns", "exec", "arvpn", "wg", "show", "wg0", "public-key")
    with tunnel(surroundings.vpn_peer, machine.forwards.vpn.host_port, box_key, VPN_ADDRESSES) as road:
        yield road


@pytest.fixture(scope="module")
def ways(machine: VirtualMachine, road: Tunnel) -> dict[str, Way]:
    """All ways to the gate; who comes out of the tunnel is seen as ARVPN."""
    return {
        "uplink": Way((), f"tcp://{LOOPBACK}:{machine.forward(7156)}", f"::ffff:{OUTSIDE_HOST}"),
        "tunnel": Way(road.inside, INNER_ENTRANCE, "::ffff:10.156.0.7"),
        "tunnel over IPv6": Way(road.inside, "tcp://[fd9c:156::9]:7156", "fd9c:156::7"),
    }


@pytest.fixture(scope="module")
def queue_key(machine: VirtualMachine) -> str:
    """The public key of the machine's broker."""
    return str(machine.status()["queue_key"])


@pytest.fixture(scope="module")
def flow(admin: ConsoleClient, surroundings: Surroundings) -> str:
    """A flow that delivers to the outside HTTP server as messages come."""
    url = f"http://{OUTSIDE_HOST}:{surroundings.target.port}/in"
    answer = patiently(lambda: admin.put_flow({"name": FLOW, "deliver": {"kind": "http", "url": url}}))
    assert answer.status == 200, answer.body
    return FLOW


@pytest.fixture(scope="module")
def far(road: Tunnel, surroundings: Surroundings, queue_key: str) -> Iterator[Side]:
    """Another cluster, its broker and its bridge behind the tunnel."""
    with clusters(CLUSTER.rpartition("/")[2]) as [side]:
        side.clients["bridge"] = (surroundings.cluster, side.clients["bridge"][1])
        side.routes = (HERE,)
        side.write_access()
        inside = (*road.inside, sys.executable)
        side.start(python=inside)
        settings = BridgeSettings(routes=(RouteSettings(to=HERE, endpoint=INNER_ENTRANCE, server_key=queue_key),))
        side.bridge = side.launch(
            "bridge", settings, side.directory / "bridge.log", python=inside, keys=surroundings.cluster
        )
        yield side


@contextlib.contextmanager
def peer(
    way: Way, queue_key: str, keys: Keys, *arguments: str, program: str = "queue_peer"
) -> Iterator["subprocess.Popen[str]"]:
    """A program of tests/outside on its way to the gate; it is ended with the context."""
    argv = [*way.inside, sys.executable, "-m", f"tests.outside.{program}", way.entrance, queue_key, keys.public]
    with subprocess.Popen(
        [*argv, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(f"{keys.secret}\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def depth(machine: VirtualMachine, address: str) -> dict[str, Any]:
    """What the broker says of an address; nothing where it has seen no message."""
    depths = json.loads(machine.output("alpha-ren", "queue", "--json"))["depths"]
    return next((each for each in depths if each["address"].rpartition("/")[2] == address), {})


def waiting(machine: VirtualMachine, address: str) -> int:
    """How many messages wait at an address."""
    return int(depth(machine, address).get("ready", 0))


@pytest.mark.parametrize("name", WAYS)
def test_a_listed_peer_comes_in(
    machine: VirtualMachine, ways: dict[str, Way], surroundings: Surroundings, queue_key: str, name: str
) -> None:
    before = waiting(machine, "in.listed")
    with peer(ways[name], queue_key, surroundings.caller, "in.listed", "3") as process:
        out, _ = process.communicate(timeout=SEEN_WITHIN_S)
    assert out.split() == ["ready", "3"]
    assert waiting(machine, "in.listed") == before + 3


@pytest.mark.parametrize("name", WAYS)
def test_nobody_else_comes_in(machine: VirtualMachine, ways: dict[str, Way], queue_key: str, name: str) -> None:
    keys = generate_keys()
    with peer(ways[name], queue_key, keys, "in.nobody", "1"):
        said = f"refused the key {keys.public} from {ways[name].seen_as}"
        machine.wait_for(f"journalctl -b -o cat -u {GATE} | grep -qF '{said}'")
    assert waiting(machine, "in.nobody") == 0


def hand_over(side: Side, numbers: Iterable[int]) -> None:
    """Publish at the other cluster's broker what the flow here is to deliver, in this order."""

    async def publish() -> None:
        async with side.client(endpoint=side.ipc) as client:
            for number in numbers:
                body = Envelope(
                    id=str(number),
                    content_type="application/json",
                    received_at=time.time(),
                    body=json.dumps({"far": number}).encode(),
                )
                await client.publish(f"{HERE}/flow.{FLOW}.0", body, id=str(number), key="one", deadline_s=30.0)

    asyncio.run(publish())


def route(side: Side) -> RouteStatus:
    """What the other cluster's bridge says of its way here."""

    async def ask() -> RoutesStatus:
        async with side.client(endpoint=side.ipc) as client:
            await client.wait_connected(30.0)
            return await client.call("bridge.routes", None, RoutesStatus)

    [status] = asyncio.run(ask()).routes
    return status


def delivered(surroundings: Surroundings) -> list[int]:
    """The numbers as they came to the outside server; what came again under its key is the HTTP client's repeat."""
    taken = [(one["key"], json.loads(one["body"]).get("far")) for one in surroundings.target.taken()]
    return [number for _, number in dict.fromkeys(taken) if number is not None]


def test_messages_of_a_cluster_behind_the_tunnel_arrive_once_and_in_order_although_it_breaks(
    machine: VirtualMachine, road: Tunnel, far: Side, flow: str, surroundings: Surroundings
) -> None:
    hand_over(far, range(BATCH))
    wait_until("the first arrive", lambda: len(delivered(surroundings)) == BATCH, SEEN_WITHIN_S)

    # What is stored here now is not answered there, so it is sent again later.
    road.deafen()
    hand_over(far, range(BATCH, 2 * BATCH))
    wait_until("one more arrives", lambda: len(delivered(surroundings)) > BATCH, SEEN_WITHIN_S)
    road.down()
    machine.output("ip", "-netns", "arvpn", "link", "delete", "wg0")
    hand_over(far, range(2 * BATCH, 3 * BATCH))
    wait_until("the bridge notices", lambda: not route(far).connected, SEEN_WITHIN_S)
    machine.wait_for("ip netns exec arvpn wg show wg0 peers | grep -q .")
    road.up()

    wait_until("all arrive", lambda: len(delivered(surroundings)) >= 3 * BATCH, SEEN_WITHIN_S)
    assert delivered(surroundings) == list(range(3 * BATCH))
    assert route(far).duplicate_total > 0
    assert route(far).refused_total == 0


def test_a_message_without_end_makes_the_kernel_end_the_gate_alone(
    machine: VirtualMachine, ways: dict[str, Way], flow: str, surroundings: Surroundings, queue_key: str
) -> None:
    before = lives(machine.status())
    # The process has a limit of its own, which comes before the kernel's.
    machine.output("systemctl", "set-property", "--runtime", "alpha-ren-gate.slice", f"MemoryMax={GATE_MEMORY_MB}M")
    with peer(ways["tunnel"], queue_key, surroundings.caller, "in.beside") as beside:
        assert beside.stdin is not None
        assert beside.stdout is not None
        assert beside.stdout.readline() == "ready\n"
        with peer(ways["uplink"], queue_key, surroundings.cluster, *ENDLESS, program="endless_peer") as endless:
            assert endless.stdout is not None
            assert endless.stdout.readline() == "gone\n"
        assert post(machine, flow, {"local": True}) == 202
        seen = waiting(machine, "in.beside")
        wait_until("the other peer goes on", lambda: waiting(machine, "in.beside") > seen, SEEN_WITHIN_S)
        beside.stdin.close()
        acknowledged = int(beside.stdout.readline())
    assert waiting(machine, "in.beside") == acknowledged
    after = lives(machine.status())
    assert {name for name, life in after.items() if life != before[name]} == {GATE}
    journal = machine.output("journalctl", "-b", "-o", "cat", "-u", GATE)
    assert "A process of this unit has been killed by the OOM killer." in journal
    assert "Failed with result 'oom-kill'." in journal

"""Two clusters on two LANs, a router between: what the link does not let through now arrives later, once, in order."""

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest

from appliance import config
from appliance.contracts.bridge import RoutesStatus
from appliance.contracts.traffic import QueueStats
from appliance.queue.keys import generate_keys
from scripts.labs import topology
from scripts.labs.place import Host, Machine
from scripts.labs.session import Lab
from tests.lab.box import CONFIG_CREDENTIAL, READY_S
from tests.lab.systems import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
SEED = 7
COUNT = 100_000
"""Messages each way."""

LOAD = generate_keys()
"""Whoever loads a box from its own LAN."""

SIDES = ("west", "east")
PLAN = topology.Topology(
    lan=(topology.Lan(name="left"), topology.Lan(name="right")),
    machine=(
        topology.Machine(name="west", nics=(topology.Nic(lan="left"),)),
        topology.Machine(name="east", nics=(topology.Nic(lan="right"),)),
    ),
    host=(
        topology.Host(name="router", lans=("left", "right")),
        topology.Host(name="load-west", lans=("left",)),
        topology.Host(name="load-east", lans=("right",)),
    ),
)
LANS = dict(zip(SIDES, ("left", "right"), strict=True))

CONFIGURATION = "/var/lib/alpha-ren/config.toml"

CHECK = """
import collections, json, sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute(
    "SELECT origin, address, id, key FROM work WHERE address GLOB 'in.[0-9]' ORDER BY seq").fetchall()
last, wrong = {}, 0
for origin, address, number, key in rows:
    for line in ((origin, address), (origin, address, key)):
        wrong += int(number) <= last.get(line, -1)
        last[line] = int(number)
    wrong += int(number) % 7 != int(key)
print(json.dumps({"stored": len(rows), "different": len({row[2] for row in rows}), "wrong": wrong}))
"""


def base(side: str) -> config.Config:
    """Return the configuration of a box that knows of no other."""
    lan = LANS[side]
    uplink = config.Uplink(
        mode="static",
        address=f"{topology.address(PLAN, side, lan)}/24",
        gateway=topology.address(PLAN, "router", lan),
        resolvers=(topology.gateway(PLAN, lan),),
    )
    return config.Config(
        machine=config.Machine(name=side, lan=LANS[side], cluster=side), network=config.Network(uplink=uplink)
    )


def apply(machine: Machine, settings: config.Config) -> None:
    """Put a configuration in force."""
    document = msgspec.toml.encode(settings).decode()
    command = ["sh", "-c", "cat > /tmp/new.toml && alpha-ren apply /tmp/new.toml"]
    machine.run(command, stdin=document, deadline_s=150.0)


def place(side: str) -> str:
    """Return `lan/cluster`."""
    return f"{LANS[side]}/{side}"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two boxes that have each other's keys, as two operators would exchange them."""
    machines = tuple(
        msgspec.structs.replace(each, credentials={CONFIG_CREDENTIAL: msgspec.toml.encode(base(each.name)).decode()})
        for each in PLAN.machine
    )
    with Lab(msgspec.structs.replace(PLAN, machine=machines)) as lab:
        lab.host("router").run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        queue_keys = {}
        for side in SIDES:
            lab.machine(side).run(["alpha-ren", "health", "--wait", f"--timeout={READY_S:.0f}"], deadline_s=READY_S + 5)
            status = json.loads(lab.machine(side).run(["alpha-ren", "status", "--json"]).stdout)
            queue_keys[side] = status["queue_key"]
        queues = {}
        for side, other in (SIDES, SIDES[::-1]):
            route = config.QueueRoute(
                to=place(other), endpoint=lab.machine(other).address(), server_key=queue_keys[other]
            )
            load = config.QueuePeer(name=f"load/{side}", public_key=LOAD.public, publish=(f"{place(other)}/in.*",))
            queues[side] = config.Queue(routes=(route,), peers=(load,))
            apply(lab.machine(side), msgspec.structs.replace(base(side), queue=queues[side]))
        bridges = {side: routes(lab.machine(side)).public_key for side in SIDES}
        for side, other in (SIDES, SIDES[::-1]):
            # It brings what the load publishes, which is no message of its own.
            peer = config.QueuePeer(name=place(other), public_key=bridges[other], publish=("in.*",), transit=True)
            queue = msgspec.structs.replace(queues[side], peers=(*queues[side].peers, peer))
            apply(lab.machine(side), msgspec.structs.replace(base(side), queue=queue))
        yield lab


def routes(machine: Machine) -> RoutesStatus:
    """Return what the bridge says, once it does."""
    answers: list[str] = []

    def asked() -> bool:
        answer = machine.run(["alpha-ren", "queue", "routes", "--json"], check=False)
        answers.append(answer.stdout)
        return answer.returncode == 0

    wait_until(f"the bridge of {machine.name} answers", asked, 60)
    return msgspec.json.decode(answers[-1], type=RoutesStatus)


def stats(machine: Machine) -> QueueStats:
    """Return the figures of the queue; a box under load may need to be asked again."""
    answers: list[str] = []

    def asked() -> bool:
        answer = machine.run(["alpha-ren", "queue", "stats", "--json"], check=False)
        answers.append(answer.stdout)
        return answer.returncode == 0

    wait_until(f"the queue of {machine.name} answers", asked, 60)
    return msgspec.json.decode(answers[-1], type=QueueStats)


@contextmanager
def load(lab: Lab, side: str, program: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Let the host beside a box run a program of tests/outside that publishes; it has its key."""
    machine = lab.machine(side)
    server_key = json.loads(machine.run(["alpha-ren", "status", "--json"]).stdout)["queue_key"]
    whom = (f"tcp://{machine.address()}:7156", server_key, LOAD.public)
    argv = [sys.executable, "-m", f"tests.outside.{program}", *whom, *arguments]
    process = lab.host(f"load-{side}").popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPOSITORY
    )
    with process:
        assert process.stdin is not None
        process.stdin.write(f"{LOAD.secret}\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def loaded(lab: Lab, side: str, count: int) -> AbstractContextManager["subprocess.Popen[str]"]:
    """Let the host beside a box publish `count` messages for the other cluster."""
    return load(lab, side, "queue_load", f"{place(SIDES[1 - SIDES.index(side)])}/in.%d", str(count))


class Cutter(threading.Thread):
    """Takes the router's cards down and up again, by chance, until it is told to stop; then both are up."""

    def __init__(self, router: Host, seed: int) -> None:
        super().__init__()
        self._router = router
        self._chance = random.Random(seed)
        self._ended = threading.Event()
        self.cuts = 0

    def run(self) -> None:
        while not self._ended.wait(self._chance.uniform(0.5, 3.0)):
            card = self._chance.choice(("left", "right"))
            self._router.run(["ip", "link", "set", card, "down"])
            self.cuts += 1
            self._ended.wait(self._chance.uniform(0.1, 3.0))
            self._router.run(["ip", "link", "set", card, "up"])

    def __enter__(self) -> "Cutter":
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self.join()


def arrived(lab: Lab, count: int) -> bool:
    """Return whether everything has left both boxes."""
    for side in SIDES:
        depths = [depth for depth in stats(lab.machine(side)).depths if "/" in depth.address]
        assert not any(depth.dead for depth in depths)
        if sum(depth.done_total for depth in depths) < count:
            return False
    return True


def through(lab: Lab, count: int, deadline_s: float) -> None:
    """Send `count` messages each way while the link is cut at random; each arrives once, in order."""
    with (
        Cutter(lab.host("router"), SEED) as cutter,
        loaded(lab, "west", count) as west,
        loaded(lab, "east", count) as east,
    ):
        for process in (west, east):
            out, _ = process.communicate(timeout=deadline_s)
            assert process.returncode == 0, out
        wait_until("everything has left", lambda: arrived(lab, count), deadline_s)
    assert cutter.cuts > 0
    for side in SIDES:
        machine = lab.machine(side)
        machine.run(["alpha-ren", "queue", "backup", "/var/tmp/queue.copy"], deadline_s=120.0)
        found = json.loads(machine.run(["python3", "-c", CHECK, "/var/tmp/queue.copy"], deadline_s=120.0).stdout)
        assert found == {"stored": count, "different": count, "wrong": 0}


@pytest.mark.timeout(1300)
def test_messages_cross_a_link_that_is_cut_at_random_once_each_and_in_order(lab: Lab) -> None:
    through(lab, COUNT, 500.0)
    for side in SIDES:
        [route] = routes(lab.machine(side)).routes
        assert (route.refused_total, route.in_hand, route.lag_s) == (0, 0, 0.0)
        assert lab.machine(side).unexpected_errors() == []


def admit(machine: Machine, name: str, public_key: str, next_key: str | None) -> None:
    """Let a box know the keys of another cluster's bridge, as its operator would."""
    document = config.parse(machine.run(["cat", CONFIGURATION]).stdout)
    peers = tuple(
        msgspec.structs.replace(peer, public_key=public_key, next_key=next_key) if peer.name == name else peer
        for peer in document.queue.peers
    )
    apply(machine, msgspec.structs.replace(document, queue=msgspec.structs.replace(document.queue, peers=peers)))


def waiting(machine: Machine, address: str) -> int:
    """Return how many messages wait at an address."""
    return sum(depth.ready for depth in stats(machine).depths if depth.address.rpartition("/")[2] == address)


@contextmanager
def publishing(lab: Lab, side: str, address: str) -> Iterator[list[int]]:
    """Publish for the other cluster while the context lasts; then the list has how many were acknowledged."""
    acknowledged: list[int] = []
    with load(lab, side, "queue_peer", f"{place(SIDES[1 - SIDES.index(side)])}/{address}") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield acknowledged
        process.stdin.close()
        acknowledged.append(int(process.stdout.readline()))


def test_the_key_of_a_bridge_changes_while_messages_cross(lab: Lab) -> None:
    west, east = (lab.machine(side) for side in SIDES)
    before = routes(west)
    admit(east, place("west"), before.public_key, before.next_key)
    with publishing(lab, "west", "in.rotated") as acknowledged:
        wait_until("they cross with the first key", lambda: waiting(east, "in.rotated") > 0, 60)
        west.run(["alpha-ren", "queue", "rotate-key", "--bridge", "--yes"], deadline_s=150.0)
        after = routes(west)
        assert after.public_key == before.next_key
        assert after.next_key not in ("", before.public_key, before.next_key)
        there = waiting(east, "in.rotated")
        wait_until("they cross with the next key", lambda: waiting(east, "in.rotated") > there, 60)
        admit(east, place("west"), after.public_key, None)
        there = waiting(east, "in.rotated")
        wait_until("they cross without the first key", lambda: waiting(east, "in.rotated") > there, 60)
    wait_until("everything has crossed", lambda: waiting(east, "in.rotated") == acknowledged[0], 60)
    assert f"refused the key {after.public_key}" not in east.logs("alpha-ren-gate.service")
    assert [machine.unexpected_errors() for machine in (west, east)] == [[], []]

"""Uplinks that are a VLAN, a bond or both, made, damaged, mended and turned into each other in the kernel at hand.

It needs no test framework, so that it also runs in a guest whose kernel has what the computer's has not.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from appliance.config import Config, Network, Uplink
from appliance.host.box import Box
from appliance.supervisor.desired import Facts, desired
from appliance.supervisor.plan import Step
from appliance.supervisor.reconcile import Reconciler
from appliance.topology import HOST, Machine
from tests.unit.host.place import said_in, throwaway
from tests.unit.supervisor.fakes import Keys, specs

CARDS = ("enp0s2", "enp0s3")
STATIC = Uplink(mode="static", address="192.0.2.7/24", gateway="192.0.2.1")
PLAIN = STATIC
VLAN = msgspec.structs.replace(STATIC, vlan=7)
OTHER_VLAN = msgspec.structs.replace(STATIC, vlan=8)
BOND = msgspec.structs.replace(STATIC, bond="lacp")
BOTH = msgspec.structs.replace(STATIC, bond="lacp", vlan=7)
KINDS = {"plain": PLAIN, "VLAN": VLAN, "other VLAN": OTHER_VLAN, "bond": BOND, "VLAN of a bond": BOTH}
DEADLINE_S = 300.0

DAMAGE = {
    "VLAN": ("ip link del uplink", "ip link set uplink down", "ip addr flush dev uplink", "ip link set enp0s2 down"),
    "bond": (
        "ip link del uplink",
        "ip link set enp0s3 nomaster",
        "ip link set uplink down",
        "ip link set enp0s2 down",
        "ip addr add 192.0.2.9/24 dev uplink",
    ),
    "VLAN of a bond": ("ip link del uplink-bond", "ip link del uplink", "ip link set uplink-bond name other"),
}
"""What a person could type in the gateway's namespace, by what the uplink is."""


KNOCK = """
import socket
while True:
    try:
        socket.create_connection(("192.0.2.1", 9), 1)
    except ConnectionRefusedError:
        break
    except OSError:
        pass
# The file shows the bonds of the namespace of whoever mounted /proc.
print(open("/proc/thread-self/net/bonding/uplink-bond").read())
"""
"""Nobody listens there: being refused is the answer of the neighbour's own kernel."""


class NotMended(Exception):
    """The machine is not what it should be."""


def machine(uplink: Uplink, cards: tuple[str, ...] = CARDS) -> Machine:
    """A small machine with that uplink."""
    carriers = cards if uplink.bond else cards[:1]
    wanted = desired(
        Config(network=Network(uplink=uplink)), specs(), Facts(public_keys=Keys(), uplink_nics=carriers)
    ).machine
    return msgspec.structs.replace(wanted, files=(), directories=(), units=())


async def lacks(folder: Path) -> tuple[str, ...]:
    """What the kernel at hand cannot make, in sentences."""
    async with asyncio.timeout(DEADLINE_S), throwaway(folder) as box:
        await plug(box)
        reconciler = Reconciler(box)
        await reconciler.round(machine(BOND), "a bond")
        missing = reconciler.notes
        await reconciler.round(machine(VLAN), "a VLAN")
        return (*missing, *reconciler.notes)


async def plug(box: Box) -> None:
    """Give the machine cards, whose far ends stay on the host."""
    await said_in(box.namespaces, HOST, "ip", "link", "set", "lo", "up")
    for card in CARDS:
        await said_in(box.namespaces, HOST, *f"ip link add {card} type veth peer name far-{card}".split())
        await said_in(box.namespaces, HOST, *f"ip link set far-{card} up".split())


async def taken(reconciler: Reconciler, box: Box, wanted: Machine, cause: str) -> list[str]:
    """Make it so; return the steps. Raise NotMended where that meets a problem or leaves anything to do."""
    outcome = await reconciler.round(wanted, cause)
    if outcome.problems:
        raise NotMended(f"{cause}: {'; '.join(problem.message for problem in outcome.problems)}")
    box.look_everywhere()
    left = said((await reconciler.look(wanted))[0])
    if left:
        raise NotMended(f"{cause}: left to do: {'; '.join(left)}")
    return said(outcome.steps)


def said(steps: tuple[Step, ...]) -> list[str]:
    """The steps as a person reads them."""
    return [str(step) for step in steps]


async def turned_into_each_other(folder: Path) -> dict[str, list[str]]:
    """Turn every kind of uplink into every other; return the steps of each."""
    found: dict[str, list[str]] = {}
    async with asyncio.timeout(DEADLINE_S), throwaway(folder) as box:
        await plug(box)
        reconciler = Reconciler(box)
        await taken(reconciler, box, machine(PLAIN), "plain")
        for before, old in KINDS.items():
            for after, new in KINDS.items():
                if before != after:
                    await taken(reconciler, box, machine(old), f"back to {before}")
                    name = f"{before} to {after}"
                    found[name] = await taken(reconciler, box, machine(new), name)
                    if (await box.addresses("edge"))["uplink"] != ("192.0.2.7/24",):
                        raise NotMended(f"{name}: the addresses are {await box.addresses('edge')}")
    return found


async def mended(folder: Path) -> dict[str, list[str]]:
    """Do every damage to every kind; return the steps that mended each."""
    found: dict[str, list[str]] = {}
    async with asyncio.timeout(DEADLINE_S), throwaway(folder) as box:
        await plug(box)
        reconciler = Reconciler(box)
        for kind, damages in DAMAGE.items():
            wanted = machine(KINDS[kind])
            await taken(reconciler, box, wanted, kind)
            for damage in damages:
                await said_in(box.namespaces, "edge", *damage.split())
                found[f"{kind}: {damage}"] = await taken(reconciler, box, wanted, damage)
    return found


async def a_port_that_comes_and_goes(folder: Path) -> list[list[str]]:
    """Pull one card of a bond out, and plug it in again; return the steps of both."""
    async with asyncio.timeout(DEADLINE_S), throwaway(folder) as box:
        await plug(box)
        reconciler = Reconciler(box)
        await taken(reconciler, box, machine(BOND), "a bond")
        await said_in(box.namespaces, HOST, "ip", "link", "del", f"far-{CARDS[0]}")
        found = [await taken(reconciler, box, machine(BOND, CARDS[1:]), "pulled out")]
        await said_in(box.namespaces, HOST, *f"ip link add {CARDS[0]} type veth peer name far-{CARDS[0]}".split())
        return [*found, await taken(reconciler, box, machine(BOND), "plugged in")]


async def spoken_with_neighbour(folder: Path) -> str:
    """Make the neighbour a VLAN of a bond, too; return what the bond says of the one it met, once that one answered."""
    async with asyncio.timeout(DEADLINE_S), throwaway(folder) as box:
        await plug(box)
        far = "ip link add far type bond mode 802.3ad miimon 100 lacp_rate fast"
        ports = [f"ip link set far-{card} down; ip link set far-{card} master far" for card in CARDS]
        up = "ip link set far up; ip link add link far name far.7 type vlan id 7; ip link set far.7 up"
        address = "ip addr add 192.0.2.1/24 dev far.7"
        await said_in(box.namespaces, HOST, "sh", "-ec", "; ".join((far, *ports, up, address)))
        reconciler = Reconciler(box)
        rules = msgspec.structs.replace(machine(BOTH), rulesets=())
        await taken(reconciler, box, rules, "VLAN of a bond")
        return await said_in(box.namespaces, "edge", sys.executable, "-c", KNOCK)

"""Damages a host that the supervisor's process keeps, and waits until it is as it was."""

import asyncio
import socket
import subprocess
import sys
import time
from contextlib import closing
from functools import partial

from appliance.host.dump import see
from appliance.host.events import BUFFER, NETLINK_NETFILTER, NETLINK_ROUTE, NFTABLES_GROUPS, ROUTE_GROUPS
from appliance.host.firewall import Firewall
from appliance.host.netns import Namespaces
from appliance.topology import HOST
from tests.bench.hosts import rounds, running
from tests.bench.hosts.figures import DRIFTED, Drift, Drifts

DAMAGED = "arsrv-1"
PORT = "ar-c257"
KINDS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "veth": (NETLINK_ROUTE, ROUTE_GROUPS, ("ip", "link", "del", PORT)),
    "ruleset": (
        NETLINK_NETFILTER,
        NFTABLES_GROUPS,
        ("nsenter", f"--net=/run/netns/{DAMAGED}", "nft", "flush", "ruleset"),
    ),
}
"""By kind: the netlink family and groups that tell of it, and the damage."""

REPAIRED_WITHIN_S = 20.0
CALM_S = 6.0
"""After much work the supervisor rests; after as long as this it has its whole purse again (`Pace`)."""
BETWEEN_S = 2.0
"""Its own steps wake it once more."""


def drifts(runs: int) -> Drifts:
    """Take all of them."""
    taken: dict[str, dict[int, list[Drift]]] = {kind: {} for kind in KINDS}
    texts: dict[str, str] = {}
    for servers in DRIFTED:
        with running.surroundings(servers):
            with running.supervisor():
                time.sleep(CALM_S)
                for kind in KINDS:
                    taken[kind][servers] = [_drift(kind) for _ in range(runs)]
                    took = ", ".join(f"{each.repaired_s * 1000:.0f}" for each in taken[kind][servers])
                    print(f"  {servers} servers, {kind}: {took} ms", file=sys.stderr, flush=True)
            texts.update(asyncio.run(_profiles(servers)))
    return Drifts(taken=taken, profiles=texts)


async def _profiles(servers: int) -> dict[str, str]:
    """Look where the time of a round that repairs goes, in this process."""
    async with rounds.single() as (box, a_round):

        async def damaged(kind: str) -> None:
            process = await asyncio.create_subprocess_exec(*KINDS[kind][2])
            assert await process.wait() == 0

        return {f"{kind}-{servers}": await rounds.profiled(box, partial(damaged, kind), a_round) for kind in KINDS}


def _drift(kind: str) -> Drift:
    family, groups, command = KINDS[kind]
    namespaces = Namespaces()
    look = partial(_leg if kind == "veth" else _rules, namespaces)
    before = look()
    at, began = time.time(), time.monotonic()
    with (
        closing(namespaces),
        _listener(namespaces, family, groups) as listener,
        subprocess.Popen(command),
    ):
        told = ended = _heard(listener)
        while left := sorted(set(before) ^ set(look())):
            try:
                _heard(listener)
            except TimeoutError as error:
                raise TimeoutError(f"not repaired: {'; '.join(left)}") from error
            ended = time.monotonic()
    time.sleep(BETWEEN_S)
    return Drift(told_s=told - began, repaired_s=ended - told, said_s=asyncio.run(_said(at)))


def _listener(namespaces: Namespaces, family: int, groups: int) -> socket.socket:
    with namespaces.inside(DAMAGED):
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    listener.bind((0, groups))
    listener.settimeout(REPAIRED_WITHIN_S)
    return listener


def _heard(listener: socket.socket) -> float:
    """Wait for the kernel to tell of a change, and return when it did."""
    listener.recv(BUFFER)
    return time.monotonic()


def _rules(namespaces: Namespaces) -> list[str]:
    return Firewall(namespaces).listed(DAMAGED).splitlines()


def _leg(namespaces: Namespaces) -> list[str]:
    """Return the damaged namespace's links, addresses and routes, and the port on the host, without what the kernel
    chose.
    """
    inside = see(namespaces, DAMAGED)
    host = see(namespaces, HOST).links
    links = [*inside.links.values(), *([host[PORT]] if PORT in host else [])]
    said = [f"{link.name} {link.alias} {link.up} {link.mtu} {link.master} {link.isolated}" for link in links]
    said += [link.mac for link in inside.links.values()]
    for link in inside.links.values():
        said += [f"{link.name} {address}" for address in sorted(inside.addresses.get(link.index, ()))]
    return sorted([*said, *(f"{way.destination} {way.gateway} {way.protocol}" for way in inside.ways)])


async def _said(since: float) -> float:
    """Return how long the repair took by the supervisor's own word."""
    repairs = (await running.status()).repairs
    return max((repair.took_s for repair in repairs if repair.at >= since), default=0.0)

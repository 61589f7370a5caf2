"""Who reaches whom through the rules: real connections in throwaway namespaces, and a table written by hand."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.host.box import Box
from appliance.host.netns import Namespaces
from appliance.supervisor.reconcile import Reconciler
from appliance.topology import HOST, Machine
from tests.unit.host.place import said_in, throwaway
from tests.unit.supervisor.fakes import small

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may")

MACHINE = msgspec.structs.replace(small(uplink_nics=("enp9s9",)).machine, files=(), directories=(), units=())
INNER = ("edge", "queue", "names", "mail", "srv-1", "srv-2")
PORTS = (22, 25, 53, 80, 443, 7156, 7180)
SETTLED_S = 0.5

# Where each is found by the others, and the uplink's addresses as the outside sees them.
ADDRESSES = {
    "edge": ("10.156.16.1", "fd9c:156:0:1::1"),
    "queue": ("10.156.16.2", "fd9c:156:0:1::2"),
    "names": ("10.156.16.5", "fd9c:156:0:1::5"),
    "mail": ("10.156.0.8", "fd9c:156::8"),
    "srv-1": ("10.156.17.1", "fd9c:156:0:1::101"),
    "srv-2": ("10.156.17.2", "fd9c:156:0:1::102"),
    "outside": ("192.0.2.1", "2001:db8::1"),
    "uplink": ("192.0.2.2", "2001:db8::2"),
}

ALLOWED = {
    ("srv-1", "queue", 7156),
    ("srv-2", "queue", 7156),
    ("mail", "queue", 7156),
    ("edge", "srv-1", 7180),
    ("edge", "srv-2", 7180),
    ("srv-1", "outside", 80),
    ("srv-1", "outside", 443),
    ("srv-2", "outside", 80),
    ("srv-2", "outside", 443),
    ("outside", "uplink", 443),
    ("outside", "uplink", 7156),
}
"""TCP, over IPv4 and IPv6 alike."""

ALLOWED_V4 = {("mail", "outside", 25)}
"""Its egress is to a network of IPv4."""


Probe = tuple[str, str, int, int]
"""Source, target, port, and 0 for IPv4 or 1 for IPv6."""


class Place:
    """The small machine with an outside host on its uplink; `elsewhere` says in which outer namespace somebody is."""

    def __init__(self, box: Box, outer: Namespaces) -> None:
        self.box = box
        self.outer = outer
        self.elsewhere = {"outside": "outside"}
        self._stack = AsyncExitStack()

    async def socket(self, name: str, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A socket inside a namespace, used from wherever."""
        namespaces = self.outer if name in self.elsewhere else self.box.namespaces

        def made() -> socket.socket:
            with namespaces.inside(self.elsewhere.get(name, name)):
                return socket.socket(family, kind | socket.SOCK_NONBLOCK)

        return await namespaces.call(made)

    async def listen(self, names: Iterable[str], ports: Iterable[int]) -> None:
        """Listen on all these TCP ports, over both families, as long as the test takes."""
        for name in names:
            for port in ports:
                listener = await self.socket(name, socket.AF_INET6, socket.SOCK_STREAM)
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                listener.bind(("::", port))
                listener.listen(512)
                self._stack.callback(listener.close)

    async def reached(self, probes: set[Probe], expected: set[Probe]) -> set[Probe]:
        """Which of the probes got a connection.

        Waits for all that are expected, then for as long again as a forbidden one would need to show.
        """
        found: set[Probe] = set()
        complete = asyncio.Event()

        async def probe(source: str, target: str, port: int, family: int) -> None:
            kind = socket.AF_INET6 if family else socket.AF_INET
            with await self.socket(source, kind, socket.SOCK_STREAM) as client:
                try:
                    await asyncio.get_running_loop().sock_connect(client, (ADDRESSES[target][family], port))
                except OSError:
                    return
            found.add((source, target, port, family))
            if expected <= found:
                complete.set()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(probe(*each)) for each in sorted(probes)]
            with suppress(TimeoutError):
                async with asyncio.timeout(20 if expected else 0):
                    await complete.wait()
            await asyncio.wait(tasks, timeout=SETTLED_S)
            for task in tasks:
                task.cancel()
        return found

    async def close(self) -> None:
        """End all listeners."""
        await self._stack.aclose()


@asynccontextmanager
async def small_place(folder: Path, machine: Machine = MACHINE) -> AsyncIterator[Place]:
    """Give the small machine, its card on a cable to a host that is called outside."""
    outer = Namespaces(folder / "beyond")
    await outer.call(lambda: outer.make("outside"))
    try:
        async with throwaway(folder) as box:
            await said_in(box.namespaces, HOST, "ip", "link", "add", "enp9s9", "type", "veth", "peer", "name", "cable")
            await said_in(box.namespaces, HOST, "ip", "link", "set", "cable", "netns", str(outer.path("outside")))
            outcome = await Reconciler(box).round(machine, "the test")
            assert outcome.problems == ()
            for command in (
                "ip link set lo up",
                "ip link set cable up",
                "ip addr add 192.0.2.1/24 dev cable",
                "ip addr add 2001:db8::1/64 dev cable nodad",
                "ip route add 10.156.0.0/16 via 192.0.2.2",
                "ip route add fd9c:156::/48 via 2001:db8::2",
            ):
                await said_in(outer, "outside", *command.split())
            for command in ("ip addr add 192.0.2.2/24 dev uplink", "ip addr add 2001:db8::2/64 dev uplink nodad"):
                await said_in(box.namespaces, "edge", *command.split())
            place = Place(box, outer)
            try:
                yield place
            finally:
                await place.close()
    finally:
        await outer.call(lambda: outer.remove("outside"))
        outer.close()


def both(allowed: set[tuple[str, str, int]]) -> set[Probe]:
    """Each of them over both families."""
    return {(*each, family) for each in allowed for family in (0, 1)}


EXPECTED = both(ALLOWED) | {(*each, 0) for each in ALLOWED_V4}


EVERY_PROBE = {
    (source, target, port, family)
    for source in (*INNER, "outside")
    for target in (*INNER, "outside", "uplink")
    if source != target and not (source == "edge" and target == "uplink")
    for port in PORTS
    for family in (0, 1)
}


def run(folder: Path, work: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    """Do `work` in the small place."""

    async def all_of_it() -> None:
        async with asyncio.timeout(90), small_place(folder) as place:
            await work(place)

    asyncio.run(all_of_it())


async def follow_the_table(place: Place) -> None:
    """Everybody asks everybody on every port, and what is reached is what the table says."""
    await place.listen((*INNER, "outside"), PORTS)
    found = await place.reached(EVERY_PROBE, EXPECTED)
    assert found - EXPECTED == set()
    assert EXPECTED - found == set()


def test_connections_are_made_where_the_table_says_so_and_nowhere_else(tmp_path: Path) -> None:
    run(tmp_path, follow_the_table)


def test_a_port_opened_by_hand_is_found(tmp_path: Path) -> None:
    """The test above would notice."""

    async def work(place: Place) -> None:
        await place.listen(("srv-2",), (22,))
        for namespace, chain in (("srv-1", "output"), ("srv-2", "input")):
            rule = f"add rule inet alpha-ren {chain} tcp dport 22 accept"
            await said_in(place.box.namespaces, namespace, "nft", *rule.split())
        # Ports of one bridge that are isolated from each other stay so whatever the rules say.
        assert await place.reached({("srv-1", "srv-2", 22, 0)}, set()) == set()
        for port in ("ar-c257", "ar-c258"):
            await said_in(place.box.namespaces, HOST, "bridge", "link", "set", "dev", port, "isolated", "off")
        opened = {("srv-1", "srv-2", 22, 0)}
        assert await place.reached(opened, opened) == opened

    run(tmp_path, work)


@pytest.mark.parametrize("family", [0, 1])
def test_the_outside_sees_the_uplink_and_the_inside_sees_the_outsides_own_address(tmp_path: Path, family: int) -> None:
    kind = socket.AF_INET6 if family else socket.AF_INET

    async def peer_of(place: Place, source: str, target: str, seen_at: str, port: int) -> str:
        loop = asyncio.get_running_loop()
        with await place.socket(seen_at, kind, socket.SOCK_STREAM) as listener:
            listener.bind(("::" if family else "0.0.0.0", port))
            listener.listen()
            with await place.socket(source, kind, socket.SOCK_STREAM) as client:
                await loop.sock_connect(client, (ADDRESSES[target][family], port))
                accepted, address = await loop.sock_accept(listener)
                accepted.close()
                return str(address[0])

    async def work(place: Place) -> None:
        assert await peer_of(place, "srv-1", "outside", "outside", 443) == ADDRESSES["uplink"][family]
        assert await peer_of(place, "outside", "uplink", "queue", 7156) == ADDRESSES["outside"][family]

    run(tmp_path, work)


def test_names_are_asked_by_everybody_over_udp_and_nothing_else_is(tmp_path: Path) -> None:
    async def heard(place: Place, source: str, target: str, port: int, answer: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        with await place.socket(target, socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("0.0.0.0", port))
            with await place.socket(source, socket.AF_INET, socket.SOCK_DGRAM) as client:
                await loop.sock_sendto(client, b"?", (ADDRESSES[target][0], port))
                assert await loop.sock_recv(listener, 16) == b"?"
                answer.set()

    async def work(place: Place) -> None:
        for source in ("edge", "queue", "mail", "srv-1", "srv-2"):
            async with asyncio.timeout(20):
                await heard(place, source, "names", 53, asyncio.Event())
        for source, target, port in (("names", "queue", 53), ("srv-1", "queue", 7156), ("mail", "srv-1", 53)):
            silent = asyncio.Event()
            # A packet that the sender's own rules drop is an error there, one dropped on the way is silence.
            with suppress(TimeoutError, PermissionError):
                async with asyncio.timeout(SETTLED_S):
                    await heard(place, source, target, port, silent)
            assert not silent.is_set()

    run(tmp_path, work)

"""Who reaches whom where a server is a virtual machine: the same table as ever, and a guest that lies goes nowhere."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.config import Config
from appliance.host.box import Box
from appliance.host.guest import GROUP_NUMBER
from appliance.supervisor.guest import GUEST_NETWORK, ends, mac
from appliance.supervisor.plan import Step
from appliance.supervisor.reconcile import Reconciler
from appliance.topology import HOST
from tests.unit.host.cable import IFF_NO_PI, IFF_TAP, TUNSETIFF, plugged
from tests.unit.host.place import Heard, said_in, throwaway
from tests.unit.host.test_reach import (
    ADDRESSES,
    MACHINE,
    SETTLED_S,
    Place,
    Probe,
    follow_the_table,
    small_place,
)
from tests.unit.supervisor.fakes import small

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may")

WHOLE = small(uplink_nics=("enp9s9",), guests=frozenset({"srv-1"})).machine
GUEST_MACHINE = msgspec.structs.replace(WHOLE, files=(), directories=(), units=())
NETWORK = next(file.content for file in WHOLE.files if file.path.endswith(f"srv-1/{GUEST_NETWORK}"))
MAC = mac(257)


def run(folder: Path, work: Callable[[Place, str], Coroutine[Any, Any, None]]) -> None:
    """Do `work` in the small place, with a guest behind srv-1."""

    async def all_of_it() -> None:
        async with asyncio.timeout(90), small_place(folder, GUEST_MACHINE) as place:
            spaces = place.box.namespaces
            async with plugged(spaces, GUEST_MACHINE.taps[0], place.outer, MAC, NETWORK) as guest:
                place.elsewhere["srv-1"] = guest
                await work(place, guest)

    asyncio.run(all_of_it())


def test_the_table_is_the_same_with_a_guest(tmp_path: Path) -> None:
    run(tmp_path, lambda place, _guest: follow_the_table(place))


async def seen_from(place: Place, source: str, target: str, port: int, family: int) -> str:
    """The address at which `target` sees a connection from `source`."""
    kind = socket.AF_INET6 if family else socket.AF_INET
    loop = asyncio.get_running_loop()
    with await place.socket(target, kind, socket.SOCK_STREAM) as listener:
        listener.bind(("::" if family else "0.0.0.0", port))
        listener.listen()
        with await place.socket(source, kind, socket.SOCK_STREAM) as client:
            await loop.sock_connect(client, (ADDRESSES[target][family], port))
            accepted, address = await loop.sock_accept(listener)
            accepted.close()
            return str(address[0])


@pytest.mark.parametrize("family", [0, 1])
def test_a_guest_is_seen_as_its_instance_and_sees_who_calls_it(tmp_path: Path, family: int) -> None:
    async def work(place: Place, _guest: str) -> None:
        assert await seen_from(place, "srv-1", "queue", 7156, family) == ADDRESSES["srv-1"][family]
        assert await seen_from(place, "edge", "srv-1", 7180, family) == ADDRESSES["edge"][family]

    run(tmp_path, work)


TAKE_HOLD = f"""
import fcntl, os, struct
fcntl.ioctl(os.open("/dev/net/tun", os.O_RDWR), {TUNSETIFF}, struct.pack("16sH22x", b"vm", {IFF_TAP | IFF_NO_PI}))
"""


@pytest.mark.parametrize("member", [True, False])
def test_an_emulator_without_rights_takes_hold_of_the_cable_by_its_group_alone(tmp_path: Path, member: bool) -> None:
    group = GROUP_NUMBER if member else GROUP_NUMBER + 1
    argv = ["setpriv", "--reuid=65534", "--regid=65534", f"--groups={group}", "--bounding-set=-all"]

    async def all_of_it() -> None:
        async with asyncio.timeout(60), throwaway(tmp_path) as box:
            assert (await Reconciler(box).round(NO_CARD, "the test")).problems == ()
            taken = said_in(box.namespaces, "srv-1", *argv, "/usr/bin/python3", "-c", TAKE_HOLD)
            if member:
                await taken
            else:
                with pytest.raises(AssertionError, match="Operation not permitted"):
                    await taken

    asyncio.run(all_of_it())


LIES: dict[str, tuple[tuple[str, ...], int]] = {
    "another MAC address": (("ip link set eth0 address 02:00:00:00:00:66",), 0),
    "another IPv4 address": (
        ("ip addr add 10.156.47.2/32 dev eth0", "ip route change default via {near} src 10.156.47.2"),
        0,
    ),
    "the address of a sibling": (
        ("ip addr add 10.156.17.2/32 dev eth0", "ip route change default via {near} src 10.156.17.2"),
        0,
    ),
    "another IPv6 address": (
        ("ip addr add 2001:db8::66/128 dev eth0 nodad", "ip -6 route change default via {near6} src 2001:db8::66"),
        1,
    ),
}


@pytest.mark.parametrize(("commands", "family"), LIES.values(), ids=LIES)
def test_a_guest_that_lies_about_who_it_is_is_dropped(tmp_path: Path, commands: tuple[str, ...], family: int) -> None:
    near4, near6 = (text.partition("/")[0] for text in ends(Config()).near)
    probe: Probe = ("srv-1", "queue", 7156, family)

    async def work(place: Place, guest: str) -> None:
        await place.listen(("queue",), (7156,))
        assert await place.reached({probe}, {probe}) == {probe}
        for command in commands:
            await said_in(place.outer, guest, *command.format(near=near4, near6=near6).split())
        assert await place.reached({probe}, set()) == set()

    run(tmp_path, work)


def test_a_guest_reaches_neither_a_sibling_nor_its_own_namespace(tmp_path: Path) -> None:
    async def work(place: Place, guest: str) -> None:
        await place.listen(("srv-2", "edge"), (22, 7180))
        loop = asyncio.get_running_loop()
        with await place.socket("srv-1", socket.AF_INET, socket.SOCK_STREAM) as client:
            near = ends(Config()).near[0].partition("/")[0]
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLED_S):
                    await loop.sock_connect(client, (near, 22))
            with pytest.raises(OSError, match="not connected"):
                client.getpeername()
        # Even where the bridge would let it, its own rules do not.
        for port in ("ar-c257", "ar-c258"):
            await said_in(place.box.namespaces, HOST, "bridge", "link", "set", "dev", port, "isolated", "off")
        probes: set[Probe] = {("srv-1", "srv-2", port, family) for port in (22, 7180) for family in (0, 1)}
        assert await place.reached(probes, set()) == set()
        # The test would notice.
        rule = 'insert rule inet alpha-ren forward iifname "vm" tcp dport 7180 accept'
        await said_in(place.box.namespaces, "srv-1", "nft", *rule.split())
        rule = "insert rule inet alpha-ren input tcp dport 7180 accept"
        await said_in(place.box.namespaces, "srv-2", "nft", *rule.split())
        opened: set[Probe] = {("srv-1", "srv-2", 7180, 0)}
        assert await place.reached(opened, opened) == opened

    run(tmp_path, work)


def lines(steps: tuple[Step, ...]) -> list[str]:
    """The steps as a person reads them."""
    return [str(step) for step in steps]


NO_CARD = msgspec.structs.replace(GUEST_MACHINE, nics=())
IN_NAMESPACE = msgspec.structs.replace(MACHINE, nics=())


def test_from_one_form_to_the_other_and_back_only_what_differs_changes(tmp_path: Path) -> None:
    async def work(box: Box) -> None:
        reconciler = Reconciler(box)
        assert (await reconciler.round(IN_NAMESPACE, "the test")).problems == ()
        into = ["change ruleset srv-1 (text)", "change namespace srv-1 (forwarding)", "make tap srv-1/vm"]
        assert sorted(lines((await reconciler.look(NO_CARD))[0])) == sorted(into)
        assert (await reconciler.round(NO_CARD, "a virtual machine")).problems == ()
        assert lines((await reconciler.look(NO_CARD))[0]) == []
        async with Box(Heard(), pinned=tmp_path / "netns", host=tmp_path / "outer" / "host") as another:
            assert lines((await Reconciler(another).look(NO_CARD))[0]) == []
        back = [
            "remove tap srv-1/vm (nobody declares it)",
            "change namespace srv-1 (forwarding)",
            "change ruleset srv-1 (text)",
        ]
        assert sorted(lines((await reconciler.look(IN_NAMESPACE))[0])) == sorted(back)
        assert (await reconciler.round(IN_NAMESPACE, "a namespace")).problems == ()
        assert lines((await reconciler.look(IN_NAMESPACE))[0]) == []

    async def all_of_it() -> None:
        async with asyncio.timeout(60), throwaway(tmp_path) as box:
            await work(box)

    asyncio.run(all_of_it())

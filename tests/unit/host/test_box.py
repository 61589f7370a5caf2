"""Plans carried out in the real kernel, in throwaway network namespaces: made, found again, damaged, repaired."""

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.config import Config, Network, Uplink
from appliance.host import links, observe
from appliance.host.box import Box
from appliance.host.dump import Seen, see
from appliance.host.events import Stale
from appliance.host.firewall import Firewall
from appliance.host.links import Sockets
from appliance.host.netlink import Netlink
from appliance.host.netns import Namespaces
from appliance.host.observe import Observer
from appliance.supervisor.cards import match
from appliance.supervisor.desired import Facts, desired
from appliance.supervisor.plan import Step, plan
from appliance.supervisor.reconcile import Reconciler
from appliance.topology import HOST, File, Namespace
from tests.unit.host.place import Heard, said_in, throwaway
from tests.unit.supervisor.fakes import Keys, small, specs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may")

REPOSITORY = Path(__file__).parents[3]
NETWORK = msgspec.structs.replace(small().machine, files=(), directories=(), units=())


def run(folder: Path, work: Callable[[Box, Reconciler], Coroutine[Any, Any, None]], heard: Heard | None = None) -> None:
    """Do `work` on a throwaway machine that is as it should be."""

    async def all_of_it() -> None:
        async with asyncio.timeout(60), throwaway(folder, heard) as box:
            reconciler = Reconciler(box)
            outcome = await reconciler.round(NETWORK, "the test")
            assert outcome.problems == ()
            await work(box, reconciler)

    asyncio.run(all_of_it())


async def ip(box: Box, namespace: str, *words: str) -> str:
    """What `ip` (or `nft`) says inside a namespace."""
    return await said_in(box.namespaces, namespace, *words)


def lines(steps: tuple[Step, ...]) -> list[str]:
    """The steps as a person reads them."""
    return [str(step) for step in steps]


def test_a_second_plan_is_empty(tmp_path: Path) -> None:
    async def work(_box: Box, reconciler: Reconciler) -> None:
        steps, _ = await reconciler.look(NETWORK)
        assert lines(steps) == []

    run(tmp_path, work)


def test_an_address_that_a_client_left_behind_becomes_ours_where_it_is_the_wanted_one(tmp_path: Path) -> None:
    uplink = Uplink(mode="static", address="192.0.2.7/24", gateway="192.0.2.1")
    config = Config(network=Network(uplink=uplink))
    machine = desired(config, specs(), Facts(public_keys=Keys(), uplink_nics=("enp9s9",))).machine
    wanted = msgspec.structs.replace(machine, files=(), directories=(), units=())

    async def work(box: Box, reconciler: Reconciler) -> None:
        await ip(box, HOST, "ip", "link", "add", "enp9s9", "type", "veth", "peer", "name", "cable")
        await ip(box, HOST, "ip", "link", "set", "cable", "up")
        assert (await reconciler.round(wanted, "a card")).problems == ()
        for how in (("valid_lft", "3600", "preferred_lft", "1800"), ("noprefixroute",)):
            await ip(box, "edge", "ip", "addr", "del", "192.0.2.7/24", "dev", "uplink")
            await ip(box, "edge", "ip", "addr", "add", "192.0.2.7/24", "dev", "uplink", *how)
            assert "change nic edge/uplink (addresses)" in lines((await reconciler.look(wanted))[0])
            assert (await reconciler.round(wanted, "a client went")).problems == ()
            assert lines((await reconciler.look(wanted))[0]) == []
            shown = await ip(box, "edge", "ip", "-4", "addr", "show", "dev", "uplink")
            assert ("noprefixroute" in shown, "dynamic" in shown) == (False, False)
            assert "192.0.2.0/24 dev uplink proto kernel" in await ip(box, "edge", "ip", "route")

    run(tmp_path, work)


def test_a_supervisor_that_starts_anew_finds_everything_and_changes_nothing(tmp_path: Path) -> None:
    async def work(box: Box, _reconciler: Reconciler) -> None:
        pinned = tmp_path / "netns"
        async with Box(Heard(), pinned=pinned, host=tmp_path / "outer" / "host") as another:
            steps, _ = await Reconciler(another).look(NETWORK)
            assert lines(steps) == []

    run(tmp_path, work)


DAMAGE: list[tuple[str, tuple[str, ...], str]] = [
    (HOST, ("ip", "link", "del", "ar-c257"), "make veth srv-1/cluster"),
    ("srv-1", ("ip", "link", "set", "cluster", "down"), "change veth srv-1/cluster (up, addresses)"),
    ("srv-1", ("ip", "addr", "add", "10.156.99.9/20", "dev", "cluster"), "change veth srv-1/cluster (addresses)"),
    ("srv-1", ("ip", "addr", "del", "fd9c:156:0:1::101/64", "dev", "cluster"), "change veth srv-1/cluster (addresses)"),
    ("srv-1", ("ip", "link", "set", "cluster", "address", "02:00:00:00:00:99"), "change veth srv-1/cluster (mac)"),
    (HOST, ("ip", "link", "set", "ar-c257", "nomaster"), "change veth srv-1/cluster (bridge, isolated)"),
    (HOST, ("bridge", "link", "set", "dev", "ar-c257", "isolated", "off"), "change veth srv-1/cluster (isolated)"),
    (HOST, ("ip", "link", "del", "cluster"), "make bridge cluster"),
    ("srv-1", ("ip", "route", "del", "default"), "make route srv-1/default"),
    ("srv-1", ("nft", "flush", "ruleset"), "change ruleset srv-1 (text)"),
    (
        "srv-1",
        ("nft", "add", "rule", "inet", "alpha-ren", "input", "tcp", "dport", "22", "accept"),
        "change ruleset srv-1 (text)",
    ),
    (HOST, ("nft", "add", "table", "inet", "more"), "change ruleset host (text)"),
    ("srv-1", ("ip", "link", "set", "cluster", "mtu", "1400"), "change veth srv-1/cluster (mtu)"),
    (HOST, ("ip", "link", "set", "ar-c257", "mtu", "1400"), "change veth srv-1/cluster (mtu)"),
    (HOST, ("ip", "link", "set", "cluster", "mtu", "1400"), "change bridge cluster (mtu)"),
    ("srv-1", ("ip", "link", "set", "cluster", "name", "other"), "change veth srv-1/cluster (found_as)"),
    (HOST, ("ip", "link", "set", "ar-c257", "name", "other"), "change veth srv-1/cluster (host_name)"),
    (HOST, ("ip", "link", "set", "cluster", "name", "other"), "change bridge cluster (found_as)"),
    (HOST, ("ip", "link", "set", "cluster", "down"), "change bridge cluster (up)"),
    ("srv-1", ("ip", "link", "add", "more", "type", "bridge"), "remove stray srv-1/more (nobody declares it)"),
    (
        "srv-1",
        ("ip", "link", "add", "more", "type", "veth", "peer", "name", "most"),
        "remove stray srv-1/most (nobody declares it)",
    ),
    (
        HOST,
        ("ip", "link", "add", "more", "master", "cluster", "type", "veth", "peer", "name", "most"),
        "remove stray host/more (nobody declares it)",
    ),
    ("srv-1", ("ip", "link", "set", "lo", "down"), "change namespace srv-1 (loopback)"),
    ("srv-1", ("ip", "addr", "add", "192.0.2.1/32", "dev", "lo"), "change namespace srv-1 (loopback)"),
    (
        "srv-1",
        ("ip", "route", "add", "192.0.2.0/24", "via", "10.156.16.9"),
        "remove route srv-1/192.0.2.0/24 (nobody declares it)",
    ),
    (
        "srv-1",
        ("ip", "route", "add", "default", "via", "10.156.16.9", "metric", "7"),
        "remove route srv-1/default metric 7 (nobody declares it)",
    ),
    (
        "srv-1",
        ("ip", "route", "add", "blackhole", "10.156.16.2/32"),
        "remove route srv-1/10.156.16.2/32 (nobody declares it)",
    ),
    (
        "srv-1",
        ("ip", "-6", "route", "add", "2001:db8::/64", "dev", "cluster"),
        "remove route srv-1/2001:db8::/64 (nobody declares it)",
    ),
    (
        "srv-1",
        ("ip", "route", "replace", "default", "via", "10.156.16.9"),
        "change route srv-1/default (gateway, protocol)",
    ),
    ("srv-1", ("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"), "change namespace srv-1 (forwarding)"),
    ("edge", ("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"), "change namespace edge (forwarding)"),
]


@pytest.mark.parametrize(("namespace", "command", "step"), DAMAGE, ids=[" ".join(command) for _, command, _ in DAMAGE])
def test_damage_is_seen_and_repaired(tmp_path: Path, namespace: str, command: tuple[str, ...], step: str) -> None:
    async def work(box: Box, reconciler: Reconciler) -> None:
        await ip(box, namespace, *command)
        steps, _ = await reconciler.look(NETWORK)
        assert step in lines(steps)
        outcome = await reconciler.round(NETWORK, "damage")
        assert outcome.problems == ()
        assert lines((await reconciler.look(NETWORK))[0]) == []

    run(tmp_path, work)


def test_a_namespace_that_went_is_made_again_with_all_that_was_in_it(tmp_path: Path) -> None:
    async def work(box: Box, reconciler: Reconciler) -> None:
        await box.namespaces.call(lambda: box.namespaces.remove("srv-1"))
        steps, _ = await reconciler.look(NETWORK)
        assert {"make namespace srv-1", "make ruleset srv-1", "make veth srv-1/cluster"} <= set(lines(steps))
        assert (await reconciler.round(NETWORK, "damage")).problems == ()
        assert lines((await reconciler.look(NETWORK))[0]) == []

    run(tmp_path, work)


def test_a_server_less_takes_its_namespace_with_it(tmp_path: Path) -> None:
    async def work(box: Box, reconciler: Reconciler) -> None:
        fewer = msgspec.structs.replace(small(1).machine, files=(), directories=(), units=())
        assert (await reconciler.round(fewer, "fewer servers")).problems == ()
        assert "srv-2" not in await box.namespaces.call(box.namespaces.names)
        assert "ar-c258" not in await ip(box, HOST, "ip", "-br", "link")
        assert lines((await reconciler.look(fewer))[0]) == []

    run(tmp_path, work)


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    async def work(box: Box, reconciler: Reconciler) -> None:
        await ip(box, HOST, "ip", "link", "add", "stranger", "type", "bridge")
        await ip(box, HOST, "ip", "link", "add", "tap7", "type", "veth", "peer", "name", "tap8")
        assert lines((await reconciler.look(NETWORK))[0]) == []

    run(tmp_path, work)


def test_a_card_moves_into_the_gateway_is_found_there_again_and_can_be_given_back(tmp_path: Path) -> None:
    with_card = msgspec.structs.replace(small(uplink_nics=("enp9s9",)).machine, files=(), directories=(), units=())

    async def work(box: Box, reconciler: Reconciler) -> None:
        await ip(box, HOST, "ip", "link", "add", "enp9s9", "type", "veth", "peer", "name", "cable")
        assert "enp9s9" in [card.name for card in await box.cards()]
        assert (await reconciler.round(with_card, "a card")).problems == ()
        assert [(card.name, card.held_in) for card in await box.cards()] == [("cable", ""), ("enp9s9", "edge")]
        # Who gives it addresses is a DHCP client: they are told, and left alone.
        await ip(box, "edge", "ip", "addr", "add", "192.0.2.7/24", "dev", "uplink")
        assert (await box.addresses("edge"))["uplink"] == ("192.0.2.7/24",)
        assert lines((await reconciler.look(with_card))[0]) == []
        assert (await reconciler.round(NETWORK, "no card")).problems == ()
        assert "enp9s9" in [card.name for card in await box.cards()]

    run(tmp_path, work)


def test_of_a_leased_ip_version_addresses_and_routes_are_the_clients_and_of_the_other_they_are_ours(
    tmp_path: Path,
) -> None:
    uplink = Uplink(address6="2001:db8::7/64", gateway6="fe80::1")
    config = Config(network=Network(uplink=uplink))
    machine = desired(config, specs(), Facts(public_keys=Keys(), uplink_nics=("enp9s9",))).machine
    wanted = msgspec.structs.replace(machine, files=(), directories=(), units=())

    async def work(box: Box, reconciler: Reconciler) -> None:
        await ip(box, HOST, "ip", "link", "add", "enp9s9", "type", "veth", "peer", "name", "cable")
        await ip(box, HOST, "ip", "link", "set", "cable", "up")
        assert (await reconciler.round(wanted, "a card")).problems == ()
        assert lines((await reconciler.look(wanted))[0]) == []
        assert "default via fe80::1 dev uplink proto 156" in await ip(box, "edge", "ip", "-6", "route")
        await ip(box, "edge", "ip", "addr", "add", "192.0.2.7/24", "dev", "uplink")
        await ip(box, "edge", "ip", "route", "add", "default", "via", "192.0.2.1", "proto", "dhcp", "metric", "1002")
        assert lines((await reconciler.look(wanted))[0]) == []
        # What a client that is gone left behind would lead elsewhere.
        await ip(box, "edge", "ip", "addr", "add", "2001:db8:1::9/64", "dev", "uplink", "nodad")
        left = ("default", "via", "fe80::9", "dev", "uplink", "proto", "ra", "metric", "1002")
        await ip(box, "edge", "ip", "-6", "route", "add", *left)
        assert lines((await reconciler.look(wanted))[0]) == [
            "remove route edge/default6 metric 1002 (nobody declares it)",
            "change nic edge/uplink (addresses)",
            "change route edge/default6 (a link under it changes)",
        ]
        assert (await reconciler.round(wanted, "leftovers")).problems == ()
        assert lines((await reconciler.look(wanted))[0]) == []
        assert (await box.addresses("edge"))["uplink"] == ("192.0.2.7/24", "2001:db8::7/64")

    run(tmp_path, work)


def test_a_supervisor_that_starts_anew_finds_the_card_that_was_moved(tmp_path: Path) -> None:
    with_card = msgspec.structs.replace(small(uplink_nics=("enp9s9",)).machine, files=(), directories=(), units=())

    async def work(box: Box, reconciler: Reconciler) -> None:
        await ip(box, HOST, "ip", "link", "add", "enp9s9", "type", "veth", "peer", "name", "cable")
        before = match(None, [card for card in await box.cards() if card.name == "enp9s9"], "edge")
        await reconciler.round(with_card, "a card")
        # A card that comes first by name, and would be the uplink of a machine that starts.
        await ip(box, HOST, "ip", "link", "add", "enp0s1", "type", "veth", "peer", "name", "other")
        async with Box(Heard(), pinned=tmp_path / "netns", host=tmp_path / "outer" / "host") as another:
            after = match(None, await another.cards(), "edge")
            assert [card.name for card in after.uplinks] == [card.name for card in before.uplinks] == ["enp9s9"]
            assert [card.mac for card in after.uplinks] == [card.mac for card in before.uplinks]
            assert {problem.code for problem in after.findings} == {"nic-unknown"}
            assert lines((await Reconciler(another).look(with_card))[0]) == []

    run(tmp_path, work)


def test_a_card_that_is_pulled_out_of_the_gateway_is_told_and_missed(tmp_path: Path) -> None:
    with_card = msgspec.structs.replace(small(uplink_nics=("enp9s9",)).machine, files=(), directories=(), units=())
    heard = Heard()

    async def work(box: Box, reconciler: Reconciler) -> None:
        await ip(box, HOST, "ip", "link", "add", "enp9s9", "type", "veth", "peer", "name", "cable")
        await reconciler.round(with_card, "a card")
        await ip(box, HOST, "ip", "link", "del", "cable")
        await heard.wait_for("a link went in edge")
        found = match(None, await box.cards(), "edge")
        assert [problem.code for problem in found.findings] == ["nic-missing"]

    run(tmp_path, work, heard)


def test_a_card_that_is_not_there_is_said_and_the_rest_is_made(tmp_path: Path) -> None:
    with_card = msgspec.structs.replace(small(uplink_nics=("enp9s9",)).machine, files=(), directories=(), units=())

    async def work(box: Box, reconciler: Reconciler) -> None:
        await ip(box, HOST, "ip", "link", "del", "ar-c257")
        outcome = await reconciler.round(with_card, "no card")
        assert [problem.message for problem in outcome.problems] == ["The network interface enp9s9 is not there."]
        assert lines((await reconciler.look(NETWORK))[0]) == []

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("namespace", "command", "cause"),
    [
        ("srv-1", ("ip", "link", "set", "cluster", "down"), "a link changed in srv-1"),
        ("srv-1", ("ip", "addr", "add", "192.0.2.1/32", "dev", "lo"), "an address came in srv-1"),
        ("srv-1", ("ip", "route", "del", "default"), "a route went in srv-1"),
        ("srv-1", ("nft", "flush", "ruleset"), "a rule changed in srv-1"),
        (HOST, ("ip", "link", "del", "ar-c257"), "a link went in the host"),
    ],
)
def test_the_kernel_tells_of_a_change(tmp_path: Path, namespace: str, command: tuple[str, ...], cause: str) -> None:
    heard = Heard()

    async def work(box: Box, _reconciler: Reconciler) -> None:
        await ip(box, namespace, *command)
        await heard.wait_for(cause)

    run(tmp_path, work, heard)


def test_only_what_an_event_touched_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def noted(namespaces: Namespaces, name: str) -> Seen:
        looked.append(name)
        return see(namespaces, name)

    async def work(box: Box, _reconciler: Reconciler) -> None:
        spaces = box.namespaces
        sockets = Sockets(spaces)
        observer = Observer(spaces, sockets, Netlink(spaces, sockets), Firewall(spaces))
        await spaces.call(lambda: observer.look(Stale()))
        monkeypatch.setattr(observe, "see", noted)
        await spaces.call(lambda: observer.look(Stale()))
        assert looked == []
        await ip(box, "srv-1", "ip", "addr", "add", "192.0.2.1/32", "dev", "cluster")
        await spaces.call(lambda: observer.look(Stale(links={"srv-1"})))
        assert looked == ["srv-1"]
        found = await spaces.call(lambda: observer.network(NETWORK))
        assert lines(plan(NETWORK, found)) == ["change veth srv-1/cluster (addresses)"]
        await spaces.call(lambda: observer.look(Stale(everything=True)))
        assert set(looked[1:]) == {HOST, *(each.name for each in NETWORK.namespaces)}

    run(tmp_path, work)


def test_only_the_sockets_that_were_used_last_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MOST_OPEN", 2)

    async def work(box: Box, _reconciler: Reconciler) -> None:
        def used() -> None:
            sockets = Sockets(box.namespaces)
            first, second = sockets.of("srv-1"), sockets.of("srv-2")
            assert sockets.of("srv-1") is first
            sockets.of("queue")
            assert sockets.of("srv-1") is first
            assert sockets.of("srv-2") is not second
            sockets.close()

        await box.namespaces.call(used)

    run(tmp_path, work)


def test_what_was_lost_in_a_storm_is_found(tmp_path: Path) -> None:
    """The kernel drops events that nobody has read, and says so once."""
    heard = Heard()
    storm = "".join(
        f"addr add 192.0.2.{number % 250}/32 dev lo\naddr del 192.0.2.{number % 250}/32 dev lo\n"
        for number in range(2000)
    )
    (tmp_path / "storm").write_text(f"{storm}addr add 192.0.2.251/32 dev cluster\n")

    async def work(box: Box, reconciler: Reconciler) -> None:
        await reconciler.look(NETWORK)
        with box.namespaces.open("srv-1") as descriptor:
            # The loop stands still meanwhile.
            subprocess.run(  # noqa: ASYNC221
                ["nsenter", f"--net=/proc/self/fd/{descriptor}", "ip", "-batch", str(tmp_path / "storm")],
                pass_fds=(descriptor,),
                check=True,
                timeout=60,
            )
        steps, _ = await reconciler.look(NETWORK)
        assert "events were lost in srv-1" in heard
        assert "change veth srv-1/cluster (addresses)" in lines(steps)

    run(tmp_path, work, heard)


def test_two_hundred_namespaces_are_followed_within_the_limit_of_open_files(tmp_path: Path) -> None:
    few, most = 4, 200
    names = [Namespace(name=f"n{number}") for number in range(few)]
    unit = REPOSITORY / "image/tree/mkosi.extra/usr/lib/systemd/system/alpha-ren-supervisor.service"
    (limit,) = re.findall("^LimitNOFILE=([0-9]+)$", unit.read_text(), re.MULTILINE)

    async def work(box: Box, reconciler: Reconciler) -> None:
        before = len(os.listdir("/proc/self/fd"))
        more = msgspec.structs.replace(NETWORK, namespaces=(*NETWORK.namespaces, *names))
        assert (await reconciler.round(more, "the test")).problems == ()
        each = (len(os.listdir("/proc/self/fd")) - before) / few
        assert each >= 1
        assert before + most * each < int(limit) / 2

    run(tmp_path, work)


def test_a_namespace_whose_pin_was_taken_away_is_told(tmp_path: Path) -> None:
    heard = Heard()

    async def work(box: Box, _reconciler: Reconciler) -> None:
        subprocess.run(["umount", "-l", box.namespaces.path("srv-1")], check=True, timeout=60)  # noqa: ASYNC221
        await heard.wait_for("the namespace srv-1 went")

    run(tmp_path, work, heard)


def test_a_file_that_comes_in_a_watched_folder_is_told(tmp_path: Path) -> None:
    heard = Heard()
    folder = tmp_path / "watched"
    folder.mkdir()

    async def work(box: Box, _reconciler: Reconciler) -> None:
        await box.follow((str(folder), str(tmp_path / "absent")))
        (folder / "lease.json").write_text("{}")
        await heard.wait_for(f"a file changed in {folder}")

    run(tmp_path, work, heard)


def test_a_refused_file_is_said_in_every_round_and_stops_nothing_else(tmp_path: Path) -> None:
    bad = File(path=str(tmp_path / "bad.conf"), content="x", check=("false", "{path}"))
    good = File(path=str(tmp_path / "good.conf"), content="x", check=("true", "{path}"))
    wanted = msgspec.structs.replace(NETWORK, files=(bad, good))

    async def work(box: Box, reconciler: Reconciler) -> None:
        await ip(box, HOST, "ip", "link", "del", "ar-c257")
        for _ in range(2):
            outcome = await reconciler.round(wanted, "a file")
            assert [problem.code for problem in outcome.problems] == ["file-refused"]
        assert lines((await reconciler.look(wanted))[0]) == [f"make file {bad.path}"]

    run(tmp_path, work)

"""The firewall as one table: every namespace asks every other, and the outside, on declared and undeclared ports, and
what gets through is what the table says. The expected table is written here by hand.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from appliance import config
from appliance.queue.keys import generate_keys
from scripts.labs import topology
from scripts.labs.place import Place
from tests.lab.box import Box, started
from tests.lab.systems import wait_until

PROBER = Path(__file__).with_name("prober.py").read_text(encoding="utf-8")

LAN = topology.default()
PLAN = msgspec.structs.replace(LAN, host=(*LAN.host, topology.Host(name="elsewhere", lans=("uplink",))))
OUTSIDE, ELSEWHERE = (topology.address(PLAN, host, "uplink") for host in ("outside", "elsewhere"))

SETTINGS = config.Config(
    mail=config.Mail(smarthost=f"{OUTSIDE}:2525", recipients=("ops@example.org",)),
    queue=config.Queue(
        routes=(config.QueueRoute(to="far/west", endpoint=ELSEWHERE, server_key=generate_keys().public),),
        peers=(config.QueuePeer(name="far/east", public_key=generate_keys().public, publish=("in.*",)),),
    ),
)
"""Everything that opens a port is switched on."""

INSIDE = (
    "ardpx", "queue", "arclst", "arhav", "dns", "portal", "arvpn", "armail", "gate", "bridge", "arwadm-1",
    "arsrv-1", "arsrv-2",
)  # fmt: skip

TABLE = """
ardpx queue arclst arhav portal arvpn armail gate bridge arwadm-1 arsrv-1 arsrv-2 | dns | tcp 53
ardpx queue arclst arhav portal arvpn armail gate bridge arwadm-1 arsrv-1 arsrv-2 | dns | udp 53
arclst arhav dns portal armail bridge arwadm-1 arsrv-1 arsrv-2                    | queue | tcp 7156
arhav arvpn     | ardpx     | tcp 443
arsrv-1 arsrv-2 | arhav     | tcp 7182
arvpn           | gate      | tcp 7156
ardpx           | arsrv-1   | tcp 7180
ardpx           | arsrv-2   | tcp 7180
ardpx           | portal    | tcp 7191
ardpx           | arwadm-1  | tcp 7190
dns             | any       | tcp 53
dns             | any       | udp 53
arsrv-1 arsrv-2 | any       | tcp 80
arsrv-1 arsrv-2 | any       | tcp 443
armail          | smarthost | tcp 2525
bridge          | west      | tcp 7156
any             | ardpx     | tcp 443
any             | ardpx     | tcp 80
any             | gate      | tcp 7156
any             | arvpn     | udp 51820
"""
NARROWED = {"smarthost": f"{OUTSIDE}/32", "west": f"{ELSEWHERE}/32"}

PORTS = (22, 25, 53, 67, 80, 443, 2525, 7156, 7157, 7180, 7182, 7190, 7191, 51820)
"""All that anybody declares, and some that nobody does."""

INNER = {"dmz": ("10.156.0", "fd9c:156::"), "cluster": ("10.156.16", "fd9c:156:0:1::")}
IN_DMZ = {"arvpn": 7, "armail": 8, "gate": 9}
IN_CLUSTER = {
    "ardpx": 1, "queue": 2, "arclst": 3, "arhav": 4, "dns": 5, "portal": 6, "bridge": 10, "arwadm-1": 17,
}  # fmt: skip


BY_ITSELF = {"ardpx": {"ardpx", "dmz of ardpx", "uplink of ardpx"}, "outside": {"outside", "elsewhere"}}
"""What is reached without passing the firewall: oneself, through the loopback interface, and a neighbour outside."""


class Row(NamedTuple):
    """A row of the table."""

    source: str
    target: str
    protocol: str
    port: int


class Passage(NamedTuple):
    """Something that gets through: from a namespace or an outside host, to a place, by IPv4 or IPv6."""

    source: str
    place: str
    protocol: str
    port: int
    version: int


def rows() -> Iterator[Row]:
    """Yield the expected rows."""
    for line in TABLE.strip().splitlines():
        sources, target, spoken = (part.split() for part in line.split("|"))
        for source in sources:
            yield Row(source, target[0], spoken[0], int(spoken[1]))


def passages() -> Iterator[Passage]:
    """Yield what the expected rows mean for a probe: from outside, everything is at the box's own address."""
    for source, target, protocol, port in rows():
        if target in NARROWED:
            yield Passage(source, {"smarthost": "outside", "west": "elsewhere"}[target], protocol, port, 4)
            continue
        seen = ["outside", "elsewhere"] if target == "any" else ["uplink of ardpx"] if source == "any" else [target]
        for place, version in product(seen, (4, 6)):
            yield Passage("outside" if source == "any" else source, place, protocol, port, version)


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box with everything switched on that opens a port, and nobody limits how often it says no."""
    with started(SETTINGS, set_up=False, plan=PLAN) as box:
        limits = "echo 0 > /proc/sys/net/ipv4/icmp_ratemask; echo 0 > /proc/sys/net/ipv6/icmp/ratemask"
        every = f"for each in /run/netns/*; do nsenter --net=$each sh -c '{limits}'; done"
        box.machine.run(["sh", "-c", every])
        for name in ("outside", "elsewhere"):
            box.lab.host(name).run(["sh", "-c", limits])
        # Whoever is outside may try to reach the inside by way of the box.
        four, six = uplink(box, 4), uplink(box, 6)
        box.outside.run(["ip", "route", "add", "10.156.0.0/16", "via", four])
        box.outside.run(["ip", "route", "add", "fd9c:156::/48", "via", six])
        yield box


def uplink(box: Box, version: int) -> str:
    """The box's own address of that family, once it has one."""
    found: list[str] = []

    def there() -> bool:
        found.extend(each.partition("/")[0] for each in box.status()["uplink"] if (":" in each) == (version == 6))
        return bool(found)

    wait_until(f"the box has an IPv{version} address", there)
    return found[0]


def six_of(place: Place) -> str:
    """The IPv6 address that a host made for itself."""
    shown = json.loads(place.run(["ip", "-6", "-json", "address", "show", "scope", "global"]).stdout)
    return str(next(each["local"] for link in shown for each in link.get("addr_info", ()) if "local" in each))


Places = dict[str, tuple[str, str]]
"""Where somebody is, by IPv4 and IPv6."""


@pytest.fixture(scope="module")
def places(box: Box) -> Places:
    """Where everybody is."""
    dmz, cluster = INNER["dmz"], INNER["cluster"]
    return {
        **{name: (f"{dmz[0]}.{slot}", f"{dmz[1]}{slot:x}") for name, slot in IN_DMZ.items()},
        **{name: (f"{cluster[0]}.{slot}", f"{cluster[1]}{slot:x}") for name, slot in IN_CLUSTER.items()},
        "arsrv-1": ("10.156.17.1", "fd9c:156:0:1::101"),
        "arsrv-2": ("10.156.17.2", "fd9c:156:0:1::102"),
        "dmz of ardpx": (f"{dmz[0]}.1", f"{dmz[1]}1"),
        "uplink of ardpx": (uplink(box, 4), uplink(box, 6)),
        "outside": (OUTSIDE, six_of(box.outside)),
        "elsewhere": (ELSEWHERE, six_of(box.lab.host("elsewhere"))),
    }


def probed(box: Box, places: Places, sources: Iterable[str]) -> set[Passage]:
    """Ask from all sources at once, everybody on every port, and return what got through."""
    asked = [
        (Passage("", place, protocol, port, version), addresses[version == 6])
        for (place, addresses), protocol, port, version in product(places.items(), ("tcp", "udp"), PORTS, (4, 6))
    ]
    order = json.dumps([(address, probe.protocol, probe.port) for probe, address in asked])
    running = {source: prober(box, source) for source in sources}
    found: set[Passage] = set()
    for process in running.values():
        assert process.stdin is not None
        process.stdin.write(order)
        process.stdin.close()
    for source, process in running.items():
        assert process.stdout is not None
        with process:
            numbers = json.loads(process.stdout.read())
        by_itself = BY_ITSELF.get(source, {source})
        found |= {asked[n][0]._replace(source=source) for n in numbers if asked[n][0].place not in by_itself}
    return found


def prober(box: Box, source: str) -> subprocess.Popen[str]:
    """Start asking from a namespace of the box, its host's namespace, or the host outside."""
    if source == "outside":
        return box.outside.popen([sys.executable, "-c", PROBER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    inside = [] if source == "host" else ["nsenter", f"--net=/run/netns/{source}"]
    return box.machine.popen([*inside, "python3", "-c", PROBER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_the_printed_table_is_the_expected_one(box: Box) -> None:
    flows = json.loads(box.machine.run(["alpha-ren", "firewall", "--json"]).stdout)["flows"]
    printed = {(flow["source"], flow.get("to") or flow["target"], flow["protocol"], flow["port"]) for flow in flows}
    assert printed == {row._replace(target=NARROWED.get(row.target, row.target)) for row in rows()}
    assert all(flow["component"] and flow["reason"] for flow in flows)


def test_who_gets_through_is_what_the_table_says(box: Box, places: Places) -> None:
    assert set(box.machine.run(["ls", "/run/netns"]).stdout.split()) == set(INSIDE)
    found, expected = probed(box, places, [*INSIDE, "host", "outside"]), set(passages())
    assert sorted(found - expected) == []
    assert sorted(expected - found) == []


HOLES = [
    ("arsrv-1", "output", "tcp dport 7157"),
    ("portal", "input", "tcp dport 7157"),
    ("armail", "output", "udp dport 22"),
    ("gate", "input", "udp dport 22"),
    ("ardpx", "input", 'iifname "uplink" udp dport 7157'),
    ("ardpx", "forward", 'iifname "uplink" tcp dport 7156'),
    ("queue", "input", "tcp dport 7156"),
]
OPENED = {
    Row("arsrv-1", "portal", "tcp", 7157),
    Row("armail", "gate", "udp", 22),
    Row("outside", "ardpx", "udp", 7157),
    Row("outside", "dmz of ardpx", "udp", 7157),
    Row("outside", "uplink of ardpx", "udp", 7157),
    Row("outside", "queue", "tcp", 7156),
    Row("outside", "gate", "tcp", 7156),  # which takes anybody from outside, and is otherwise behind a translation
}


def test_what_is_opened_by_hand_is_found(box: Box, places: Places) -> None:
    # A supervisor that runs would shut it again before anybody could ask.
    box.machine.run(["systemctl", "stop", "alpha-ren-supervisor"])
    try:
        for namespace, chain, rule in HOLES:
            insert = ["nft", "insert", "rule", "inet", "alpha-ren", chain, f"{rule} accept"]
            box.machine.run(["nsenter", f"--net=/run/netns/{namespace}", *insert])
        found = probed(box, places, ["arsrv-1", "armail", "outside"])
    finally:
        box.machine.run(["systemctl", "start", "alpha-ren-supervisor"])
    opened = {Passage(*row, version) for row, version in product(OPENED, (4, 6))}
    assert found - set(passages()) == opened

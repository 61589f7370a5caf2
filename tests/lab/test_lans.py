"""LANs on cards of their own: who is there reaches what is answered there, and nothing else; none leads to another."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance import config
from appliance.queue.keys import generate_keys
from scripts.labs import topology
from scripts.labs.place import Place
from tests.lab.box import Box, started
from tests.lab.systems import post, wait_until

PROBER = Path(__file__).with_name("prober.py").read_text(encoding="utf-8")
PORTS = (22, 25, 53, 67, 80, 443, 7156, 7157, 7180, 7190, 7191, 51820)

PLAN = topology.Topology(
    lan=(
        topology.Lan(name="uplink", ipv6="2001:db8:1::/64"),
        topology.Lan(name="cluster", ipv6="2001:db8:2::/64"),
        topology.Lan(name="management", ipv6="2001:db8:3::/64"),
    ),
    machine=(
        topology.Machine(
            name="box",
            nics=tuple(topology.Nic(lan=lan) for lan in ("uplink", "cluster", "management")),
            publish=(443,),
        ),
    ),
    host=(
        topology.Host(name="outside", lans=("uplink",)),
        topology.Host(name="server", lans=("cluster",)),
        topology.Host(name="operator", lans=("management",)),
    ),
)
LANS = {"outside": "uplink", "server": "cluster", "operator": "management"}
"""Where each host is."""
STATIC = (topology.address(PLAN, "box", "cluster"), "2001:db8:2::b0")

SETTINGS = config.Config(
    network=config.Network(
        cluster=config.Side(mode="static", address=f"{STATIC[0]}/24", address6=f"{STATIC[1]}/64"),
        management=config.Side(),
    ),
    queue=config.Queue(
        peers=(config.QueuePeer(name="far/east", public_key=generate_keys().public, publish=("in.*",)),),
    ),
)

PROFILE = "/usr/share/alpha-ren/hwprofile.toml"
NAMED = "\n".join(
    f'[[nics]]\nrole = "{role}"\nmac = "{topology.mac(PLAN, "box", card)}"\n'
    for card, role in enumerate(("uplink", "cluster", "management"))
)
"""The roles of the box's cards, which have no bus in a container."""

ANSWERED = {
    ("outside", "uplink", "tcp", 443),
    ("outside", "uplink", "tcp", 80),
    ("outside", "uplink", "tcp", 7156),
    ("outside", "uplink", "udp", 51820),
    ("server", "cluster", "tcp", 7156),
    ("operator", "management", "tcp", 443),
    ("operator", "management", "tcp", 80),
}
"""Who gets an answer, at the box's address on which LAN, over both IP versions."""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box whose hardware profile names a card for each role, ready."""
    with started(SETTINGS, set_up=False, plan=PLAN) as box:
        swap = (
            f"sed '/^\\[\\[nics]]/,/^$/d' {PROFILE} > /run/profile.toml && cat >> /run/profile.toml && "
            f"mount --bind /run/profile.toml {PROFILE} && systemctl restart alpha-ren-supervisor"
        )
        box.machine.run(["sh", "-c", swap], stdin=NAMED)
        wait_until("the LANs have their addresses", lambda: all(len(each) > 1 for each in addresses(box).values()), 60)
        box.wait_ready()
        yield box


def nics(box: Box) -> dict[str, dict[str, Any]]:
    """The cards that have a role, by role."""
    return {nic["role"]: nic for nic in box.status()["nics"]}


def addresses(box: Box) -> dict[str, list[str]]:
    """The box's own addresses on each LAN, IPv4 before IPv6."""
    status = box.status()
    found = {"uplink": status["uplink"]} | {
        nic["role"]: nic["addresses"] for nic in status["nics"] if nic["role"] != "uplink"
    }
    return {
        lan: sorted((each.partition("/")[0] for each in found.get(lan, ())), key=lambda each: ":" in each)
        for lan in LANS.values()
    }


def six_of(place: Place) -> str:
    """The IPv6 address that a host made for itself."""
    shown = json.loads(place.run(["ip", "-6", "-json", "address", "show", "scope", "global"]).stdout)
    return str(next(each["local"] for link in shown for each in link.get("addr_info", ()) if "local" in each))


def warned(box: Box) -> list[str]:
    """What the box warns of."""
    return [warning["code"] for warning in box.status()["warnings"]]


def test_each_lan_has_its_card_and_its_addresses(box: Box) -> None:
    assert {role: nic["name"] for role, nic in nics(box).items()} == dict(
        zip(LANS.values(), topology.nic_names(PLAN.machine[0]), strict=True)
    )
    assert addresses(box)["cluster"] == list(STATIC)
    four, six = addresses(box)["management"]
    assert four == topology.address(PLAN, "box", "management")
    assert six.startswith("2001:db8:3:")
    assert warned(box) == []


def test_there_is_one_way_out_and_it_is_the_uplink(box: Box) -> None:
    for version in ("-4", "-6"):
        shown = box.machine.run(["ip", "-n", "ardpx", version, "route", "show", "default"]).stdout.splitlines()
        assert [line.partition(" dev ")[2].split()[0] for line in shown] == ["uplink"]
    # The LAN's server names itself as the resolver; the uplink's is asked alone.
    resolver = topology.gateway(PLAN, "management")
    assert resolver not in box.machine.run(["cat", "/run/alpha-ren/dns/unbound.conf"]).stdout


def test_the_printed_table_says_what_is_answered_where(box: Box) -> None:
    flows = json.loads(box.machine.run(["alpha-ren", "firewall", "--json"]).stdout)["flows"]
    outer = {(flow["source"], flow["target"], flow["port"]) for flow in flows if flow["source"] in ("any", *LEGS)}
    assert outer == {
        ("any", "ardpx", 443), ("any", "ardpx", 80), ("any", "gate", 7156), ("any", "arvpn", 51820),
        ("management", "ardpx", 443), ("management", "ardpx", 80), ("cluster-lan", "gate", 7156),
    }  # fmt: skip
    said = box.machine.run(["alpha-ren", "firewall", "gate"]).stdout
    assert "is handed on from port 7156 on the cluster LAN" in said


LEGS = ("cluster-lan", "management")


def test_who_is_on_a_lan_reaches_what_is_answered_there_and_nothing_else(box: Box) -> None:
    hosts = {name: box.lab.host(name) for name in LANS}
    own = addresses(box)
    places = {lan: tuple(own[lan][:2]) for lan in LANS.values()} | {
        name: (host.address(), six_of(host)) for name, host in hosts.items()
    }
    places |= {"gate": ("10.156.0.9", "fd9c:156::9"), "queue": ("10.156.16.2", "fd9c:156:0:1::2")}
    places |= {"ardpx": ("10.156.16.1", "fd9c:156:0:1::1"), "arwadm-1": ("10.156.16.17", "fd9c:156:0:1::11")}
    for name, host in hosts.items():
        # Everybody tries to reach the inside and the other LANs by way of the box.
        for place, (four, six) in places.items():
            if place not in (name, LANS[name]):
                host.run(["ip", "route", "replace", four, "via", own[LANS[name]][0]])
                host.run(["ip", "-6", "route", "replace", six, "via", own[LANS[name]][1]])
    asked = [
        (place, protocol, port, version)
        for place, protocol, port, version in product(places, ("tcp", "udp"), PORTS, (0, 1))
    ]
    order = json.dumps([(places[place][version], protocol, port) for place, protocol, port, version in asked])
    running = {
        name: host.popen([sys.executable, "-c", PROBER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name, host in hosts.items()
    }
    found = set()
    for name, process in running.items():
        with process:
            numbers = json.loads(process.communicate(order, timeout=120)[0])
        found |= {(name, *asked[number]) for number in numbers if asked[number][0] != name}
    expected = {(*answer, version) for answer, version in product(ANSWERED, (0, 1))}
    assert sorted(found - expected) == []
    assert sorted(expected - found) == []


def test_operators_open_the_console_on_their_lan(box: Box) -> None:
    for address in addresses(box)["management"]:
        host = f"[{address}]" if ":" in address else address
        ask = ["curl", "-sk", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", f"https://{host}/ready"]
        assert box.lab.host("operator").run(ask).stdout == "200"


def test_who_is_on_a_lan_is_not_told_of_addresses_elsewhere(box: Box) -> None:
    operator, elsewhere = box.lab.host("operator"), addresses(box)["uplink"][0]
    operator.run(["ip", "route", "replace", elsewhere, "dev", "management"])
    assert not operator.succeeds(["curl", "-sk", "-o", "/dev/null", "--max-time", "4", f"https://{elsewhere}/"])
    [found] = operator.run(["ip", "neigh", "show", elsewhere]).stdout.splitlines()
    assert found.split()[-1] in ("FAILED", "INCOMPLETE")


def test_a_card_that_is_missing_is_a_warning_and_no_more(box: Box) -> None:
    box.machine.run(["ip", "-n", "ardpx", "link", "delete", "cluster-lan"])
    wait_until("the box says what is missing", lambda: warned(box) == ["nic-missing"])
    assert "The network card for the cluster LAN" in box.status()["warnings"][0]["message"]
    assert sorted(nics(box)) == ["management", "uplink"]
    assert post(box.outside, box.hook("nobody"), "{}").status == 404
    box.wait_ready()


def test_who_takes_the_management_lan_away_must_confirm_it(box: Box) -> None:
    without = msgspec.structs.replace(SETTINGS, network=config.Network(cluster=SETTINGS.network.cluster))
    command = "cat > /tmp/new.toml && alpha-ren apply --confirm-within 600 /tmp/new.toml"
    said = box.machine.run(["sh", "-c", command], stdin=msgspec.toml.encode(without).decode(), deadline_s=60).stdout
    assert "nic ardpx/management goes" in said
    assert "management to ardpx 443/tcp closes" in said
    there = topology.address(PLAN, "box", "management")
    ask = ["curl", "-sk", "-o", "/dev/null", "--max-time", "2", f"https://{there}/"]
    operator = box.lab.host("operator")
    assert not operator.succeeds(ask)
    box.machine.run(["alpha-ren", "revert"], deadline_s=60)
    wait_until("the operator is let in again", lambda: operator.succeeds(ask), 60)

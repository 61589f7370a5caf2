"""An uplink with a static address: no DHCP client, and names asked for at the configured resolver alone."""

import ipaddress
from collections.abc import Iterator

import pytest

from appliance import config
from scripts.labs import topology
from tests.lab.box import Box, started
from tests.lab.systems import post, wait_until

PLAN = topology.default()
RESOLVER = str(topology.network4(PLAN, "uplink")[1])
"""The LAN's bridge: router and resolver in one."""
NETWORK6 = ipaddress.IPv6Network(PLAN.lan[0].ipv6)
ADDRESS6 = str(NETWORK6[0xB0])


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that was told everything; the LAN has a DHCP server that it does not ask, and a router it does not hear."""
    address = topology.address(PLAN, "box", "uplink")
    uplink = config.Uplink(
        mode="static",
        address=f"{address}/24",
        gateway=RESOLVER,
        address6=f"{ADDRESS6}/64",
        gateway6=str(NETWORK6[1]),
        resolvers=(RESOLVER,),
    )
    with started(config.Config(network=config.Network(uplink=uplink)), set_up=False) as box:
        yield box


def test_the_box_is_ready_without_a_dhcp_client(box: Box) -> None:
    assert "alpha-ren-ardpx-uplink.service" not in {unit["name"] for unit in box.status()["units"]}
    assert post(box.outside, box.hook("anything"), "{}").status == 404


def test_it_is_found_at_its_ipv6_address_and_has_no_other(box: Box) -> None:
    def has_own() -> bool:
        shown = box.outside.run(["ip", "-6", "addr", "show", "scope", "global", "-tentative"]).stdout
        return "inet6" in shown

    wait_until("the outside host has an address of its own from the LAN's router", has_own, 30)
    assert post(box.outside, f"https://[{ADDRESS6}]/hooks/anything", "{}").status == 404
    assert [address for address in box.status()["uplink"] if ":" in address] == [f"{ADDRESS6}/64"]
    ways = box.machine.run(["ip", "-n", "ardpx", "-6", "route", "show", "default"]).stdout.splitlines()
    assert [way.split()[:5] for way in ways] == [["default", "via", str(NETWORK6[1]), "dev", "uplink"]]


def test_the_outsides_names_are_asked_for_at_the_configured_resolver_alone(box: Box) -> None:
    show = ["nft", "list", "chain", "inet", "alpha-ren", "output"]
    rules = box.machine.run(["ip", "netns", "exec", "dns", *show]).stdout
    out = [line.strip() for line in rules.splitlines() if "dport 53" in line]
    assert out == [f'oifname "cluster" ip daddr {RESOLVER} {kind} dport 53 accept' for kind in ("udp", "tcp")]

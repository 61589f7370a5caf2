"""An uplink with a static address: no DHCP client, and names asked for at the configured resolver alone."""

from collections.abc import Iterator

import pytest

from appliance import config
from scripts.labs import topology
from tests.lab.box import Box, started
from tests.lab.systems import post

PLAN = topology.default()
RESOLVER = str(topology.network4(PLAN, "uplink")[1])
"""The LAN's bridge: router and resolver in one."""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that was told everything; the LAN has a DHCP server that it does not ask."""
    address = topology.address(PLAN, "box", "uplink")
    uplink = config.Uplink(mode="static", address=f"{address}/24", gateway=RESOLVER, resolvers=(RESOLVER,))
    with started(config.Config(network=config.Network(uplink=uplink)), set_up=False) as box:
        yield box


def test_the_box_is_ready_without_a_dhcp_client(box: Box) -> None:
    assert "alpha-ren-ardpx-uplink.service" not in {unit["name"] for unit in box.status()["units"]}
    assert post(box.outside, box.hook("anything"), "{}").status == 404


def test_the_outsides_names_are_asked_for_at_the_configured_resolver_alone(box: Box) -> None:
    show = ["nft", "list", "chain", "inet", "alpha-ren", "output"]
    rules = box.machine.run(["ip", "netns", "exec", "dns", *show]).stdout
    out = [line.strip() for line in rules.splitlines() if "dport 53" in line]
    assert out == [f'oifname "cluster" ip daddr {RESOLVER} {kind} dport 53 accept' for kind in ("udp", "tcp")]

"""The VPN on a whole box: there where the kernel can, and said in one sentence where it cannot."""

import base64
from collections.abc import Iterator

import pytest

from appliance import config
from appliance.arvpn.service import UNSUPPORTED
from tests.lab.box import Box, started
from tests.lab.systems import wait_until

PEER = config.VpnPeer(name="laptop", public_key=base64.b64encode(bytes(range(32))).decode(), slot=2)


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box with one VPN peer."""
    with started(config.Config(vpn=config.Vpn(peers=(PEER,))), set_up=False) as box:
        yield box


def kernel_has_wireguard(box: Box) -> bool:
    """Try it in a namespace that nobody else sees."""
    return box.machine.succeeds(["unshare", "--net", "ip", "link", "add", "wg0", "type", "wireguard"])


def test_the_interface_is_there_or_the_box_says_why_not(box: Box) -> None:
    notes = [note for note in box.status()["notes"] if "WireGuard" in note]
    said = box.machine.logs(box.unit("arvpn"))
    if kernel_has_wireguard(box):
        assert notes == []
        wait_until("it says so", lambda: "WireGuard is up on wg0 for 1 peer." in box.machine.logs(box.unit("arvpn")))
        shown = box.machine.run(["ip", "netns", "exec", "arvpn", "wg", "show", "wg0", "allowed-ips"]).stdout
        assert shown.split() == [PEER.public_key, "10.156.32.2/32", "fd9c:156:0:2::2/128"]
    else:
        assert len(notes) == 1
        assert UNSUPPORTED in said


def test_a_missing_vpn_does_not_keep_the_box_from_being_ready(box: Box) -> None:
    box.wait_ready()
    assert {unit["state"] for unit in box.status()["units"] if unit["component"] == "arvpn"} == {"active"}


def test_the_outsides_port_is_handed_on_to_the_vpn_alone(box: Box) -> None:
    rules = box.machine.run(["ip", "netns", "exec", "ardpx", "nft", "list", "table", "inet", "alpha-ren"]).stdout
    handed = [line.strip() for line in rules.splitlines() if "dnat" in line and "dport" in line]
    assert any("udp dport 51820 dnat ip to 10.156.0.7:51820" in line for line in handed)
    assert not [line for line in handed if "51820" not in line]

"""Who comes in by VPN has an address of its own and reaches the console."""

import ipaddress

import msgspec

from appliance.arvpn.service import UNSUPPORTED, status
from appliance.arvpn.spec import declare
from appliance.component import inner_network
from appliance.config import Config, Queue, QueuePeer, Vpn, VpnPeer
from appliance.supervisor.flows import flow_table
from appliance.supervisor.place import place
from appliance.supervisor.registry import specs

KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
PEERS = (VpnPeer(name="laptop", public_key=KEY, slot=2), VpnPeer(name="pad", public_key=KEY, slot=9))
CONFIG = Config(vpn=Vpn(peers=PEERS))


def test_the_vpn_is_a_network_apart_from_the_inner_ones() -> None:
    wireguard = declare(Config()).instances[0].wireguard
    assert wireguard is not None
    four, six = (ipaddress.ip_interface(address).network for address in wireguard.addresses)
    for inner4, inner6 in (inner_network(Config(), "dmz"), inner_network(Config(), "cluster")):
        assert not four.overlaps(inner4)
        assert not six.overlaps(inner6)
    assert four.subnet_of(ipaddress.ip_network("10.156.0.0/16"))  # type: ignore[arg-type]  # it is IPv4


def test_every_peer_may_use_exactly_its_own_addresses() -> None:
    wireguard = declare(CONFIG).instances[0].wireguard
    assert wireguard is not None
    assert [peer.allowed for peer in wireguard.peers] == [
        ("10.156.32.2/32", "fd9c:156:0:2::2/128"),
        ("10.156.32.9/32", "fd9c:156:0:2::9/128"),
    ]


def test_the_outside_reaches_the_tunnel_and_the_tunnel_the_console_alone() -> None:
    [vpn] = declare(CONFIG).instances
    assert [(forward.number, vpn.port(forward.port).protocol) for forward in vpn.forwards] == [(51820, "udp")]
    assert [(peer.component, peer.port) for peer in vpn.peers] == [("ardpx", "https")]
    assert vpn.egress == ()


def test_the_tunnel_leads_to_the_queues_gate_where_there_is_one() -> None:
    config = msgspec.structs.replace(
        CONFIG, queue=Queue(peers=(QueuePeer(name="far/east", public_key="k" * 40, publish=("in.*",)),))
    )
    [vpn] = declare(config).instances
    assert [(peer.component, peer.port) for peer in vpn.peers] == [("ardpx", "https"), ("queue", "gate")]
    reached = {flow.target for flow in flow_table(place(config, specs(config))) if flow.source == vpn.name}
    assert reached == {"ardpx", "gate", "dns"}


def test_a_kernel_without_wireguard_is_said_in_one_sentence() -> None:
    assert status("wg0", 1, {"lo", "dmz"}) == UNSUPPORTED
    assert status("wg0", 1, {"lo", "wg0"}) == "WireGuard is up on wg0 for 1 peer."
    assert status("wg0", 2, {"wg0"}) == "WireGuard is up on wg0 for 2 peers."

"""What ARVPN declares: a WireGuard interface in the DMZ, whose peers reach the console, the queue's gate where there is
one, and nothing else.

The kernel does the work; the process beside it only says how things stand.
"""

import ipaddress

import msgspec

from appliance.component import (
    PYTHON,
    ComponentSpec,
    Forward,
    Instance,
    Peer,
    Port,
    Resources,
    UnitSpec,
    WireGuardPeerSpec,
    WireGuardSpec,
    subnet,
)
from appliance.config import Config, VpnPeer

NAME = "arvpn"
SLOT = 7
INTERFACE = "wg0"
WIREGUARD = Port(name="wireguard", number=51820, protocol="udp")
NETWORK_INDEX = 2
"""The VPN is the third inner network, after the DMZ and the cluster."""

OWN_SLOT = 1


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The interface that should be there and how many peers it has."""

    interface: str
    peers: int


def declare(config: Config) -> ComponentSpec:
    """Return the VPN of this machine; what a peer may reach is what this instance may reach."""
    four, six = subnet(config, NETWORK_INDEX)
    peers = tuple(_peer(peer, four, six) for peer in config.vpn.peers)
    vpn = Instance(
        name=NAME,
        slot=SLOT,
        legs=("dmz",),
        ports=(WIREGUARD,),
        peers=_reached(config),
        forwards=(Forward(port=WIREGUARD.name, number=WIREGUARD.number),),
        wireguard=WireGuardSpec(
            name=INTERFACE,
            listen_port=WIREGUARD.number,
            addresses=(f"{four[OWN_SLOT]}/{four.prefixlen}", f"{six[OWN_SLOT]}/{six.prefixlen}"),
            peers=peers,
        ),
        units=(UnitSpec(exec=(PYTHON, "-m", "appliance.arvpn.service"), watchdog_s=60),),
        resources=Resources(memory_mb=96, tasks=16),
        settings=Settings(interface=INTERFACE, peers=len(peers)),
    )
    return ComponentSpec(name=NAME, instances=(vpn,))


def _reached(config: Config) -> tuple[Peer, ...]:
    console = Peer(component="ardpx", port="https", reason="VPN peers use the console")
    gate = Peer(component="queue", port="gate", reason="queue peers come in by VPN too")
    return (console, gate) if config.queue.peers else (console,)


def _peer(peer: VpnPeer, four: ipaddress.IPv4Network, six: ipaddress.IPv6Network) -> WireGuardPeerSpec:
    return WireGuardPeerSpec(public_key=peer.public_key, allowed=(f"{four[peer.slot]}/32", f"{six[peer.slot]}/128"))

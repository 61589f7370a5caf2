"""A WireGuard interface's key, port and peers (generic netlink).

Runs in the helper thread, inside the interface's namespace.
"""

import base64
from pathlib import Path
from typing import Any

from pyroute2 import WireGuard as Netlink
from zmq import curve_public
from zmq.utils import z85

from appliance.topology import WireGuard, WireGuardPeer


def configure(wanted: WireGuard) -> None:
    """Give the interface the key in its file, its port and exactly its peers; sessions of peers that stay are kept."""
    with Netlink() as netlink:
        netlink.set(wanted.name, private_key=_private(wanted), listen_port=wanted.listen_port)
        for key in {peer.public_key for peer in _peers(netlink, wanted.name)} - {
            peer.public_key for peer in wanted.peers
        }:
            netlink.set(wanted.name, peer={"public_key": key, "remove": True})
        for peer in wanted.peers:
            allowed = {"public_key": peer.public_key, "allowed_ips": list(peer.allowed), "replace_allowed_ips": True}
            netlink.set(wanted.name, peer=allowed)


def observe(wanted: WireGuard) -> WireGuard:
    """Return the interface as it is, but for its addresses; `key_file` is empty where it has another key than that
    file's.
    """
    with Netlink() as netlink:
        message = _info(netlink, wanted.name)
        public = message.get_attr("WGDEVICE_A_PUBLIC_KEY") or b""
        same = public.decode() == public_of(_private(wanted))
        return WireGuard(
            namespace=wanted.namespace,
            name=wanted.name,
            listen_port=int(message.get_attr("WGDEVICE_A_LISTEN_PORT") or 0),
            key_file=wanted.key_file if same else "",
            addresses=wanted.addresses,
            peers=_in_order(_peers(netlink, wanted.name), wanted),
        )


def public_of(private: str) -> str:
    """Return the public key (base64) of a private one.

    WireGuard and CURVE have the curve in common (RFC 7748), so that no other library is loaded for it.
    """
    public = curve_public(z85.encode(base64.b64decode(private)))
    return base64.b64encode(z85.decode(public)).decode()


def _private(wanted: WireGuard) -> str:
    return Path(wanted.key_file).read_text(encoding="ascii").strip()


def _info(netlink: Netlink, name: str) -> Any:
    return next(iter(netlink.info(name)))


def _peers(netlink: Netlink, name: str) -> list[WireGuardPeer]:
    found = []
    for peer in _info(netlink, name).get_attr("WGDEVICE_A_PEERS") or ():
        allowed = tuple(str(each["addr"]) for each in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ())
        found.append(WireGuardPeer(public_key=peer.get_attr("WGPEER_A_PUBLIC_KEY").decode(), allowed=allowed))
    return found


def _in_order(found: list[WireGuardPeer], wanted: WireGuard) -> tuple[WireGuardPeer, ...]:
    """The kernel has no order among peers; who is wanted comes as it is wanted, the rest after it."""
    order = {peer.public_key: number for number, peer in enumerate(wanted.peers)}
    return tuple(sorted(found, key=lambda peer: order.get(peer.public_key, len(order))))

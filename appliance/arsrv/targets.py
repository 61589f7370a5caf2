"""Where users' flows may not deliver to: the box's own inside.

The firewall drops what no component declared, but ARSRV itself may reach the queue and others on the inner networks. So
every address is judged here as well, when the socket is made: after name resolution and for each connection, which
leaves no gap for a name that resolves differently the second time. Private addresses outside the box are legitimate
targets: they are the customer's own LAN.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from appliance.errors import Refused

if TYPE_CHECKING:
    # Only types: the declaration imports this module, and whoever reads declarations should not load a server for it.
    from aiohttp import AddrInfoType, SocketFactoryType

NOBODYS = (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "::/127", "fe80::/10", "ff00::/8",
)  # fmt: skip
"""Networks with no other host behind them: this host, loopback, link-local, multicast, reserved (RFC 6890)."""


class ForbiddenTarget(Refused):
    """A flow's delivery leads into the box itself."""

    code = "forbidden-target"
    hint = "Deliver to a host outside the box; to another flow of the box, by its outside address."


class ForbiddenAddress(OSError):
    """The same, as the error a connection attempt ends with."""


class Guard:
    """Judges addresses against the networks that are out of bounds, given in CIDR form."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def forbids(self, address: str) -> bool:
        """Return whether nothing may be sent to this IP address; a mapped or embedded IPv4 address counts as itself."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        seen = [ip]
        if isinstance(ip, ipaddress.IPv6Address):
            seen += [inner for inner in (ip.ipv4_mapped, ip.sixtofour, _nat64(ip)) if inner is not None]
        return any(one in network for one in seen for network in self._networks if one.version == network.version)

    def socket_factory(self) -> "SocketFactoryType":
        """Return what makes the sockets of an aiohttp connector, and refuses to for a forbidden address."""

        def make(info: "AddrInfoType") -> socket.socket:
            family, kind, protocol, _, address = info
            if self.forbids(str(address[0])):
                # The same words for every address: aiohttp keeps the type of errors that all say the same.
                raise ForbiddenAddress("it is inside the box")
            return socket.socket(family, kind, protocol)

        return make


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address in the well-known prefix of RFC 6052."""
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in ipaddress.IPv6Network("64:ff9b::/96") else None

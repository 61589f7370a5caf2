"""What the kernel says about links, addresses and routes (rtnetlink(7)), taken out of pyroute2's messages into types.

Everything here runs in the helper thread of `Namespaces`.
"""

import errno
import ipaddress
from collections.abc import Iterable
from typing import Any

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.host.netns import Namespaces
from appliance.topology import HOST

OURS = "alpha-ren"
"""Alias of every link of ours; a moved NIC has its name on the host behind a colon."""

ROUTE_PROTOCOL = 156
"""Who made a route (rtm_protocol); a number that nobody else uses."""

IFF_UP = 1
SCOPE_LINK = 253
MAIN_TABLE = 254


class Link(msgspec.Struct, frozen=True):
    """A link as one namespace sees it; `peer` is the index of a veth's other end, in that end's own namespace."""

    index: int
    name: str
    kind: str
    mac: str
    alias: str
    up: bool
    peer: int
    master: int
    isolated: bool


class Sockets:
    """One netlink socket for each namespace, kept open; a socket of a namespace that was replaced is closed."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._open: dict[str, tuple[int | None, IPRoute]] = {}

    def of(self, name: str) -> IPRoute:
        """Return a socket in that namespace."""
        inode = self._namespaces.inode(name)
        if name in self._open:
            opened_in, socket = self._open[name]
            if opened_in == inode:
                return socket
            self.drop(name)
        with self._namespaces.inside(name):
            socket = IPRoute()
        self._open[name] = (inode, socket)
        return socket

    def drop(self, name: str) -> None:
        """Close the socket in a namespace: an open one would keep the namespace alive."""
        if name in self._open:
            self._open.pop(name)[1].close()

    def keep(self, names: Iterable[str]) -> None:
        """Close the sockets of namespaces that are not among `names`."""
        for name in set(self._open) - {HOST, *names}:
            self.drop(name)

    def close(self) -> None:
        """Close them all."""
        for name in list(self._open):
            self.drop(name)


def link(socket: IPRoute, name: str) -> Link | None:
    """Return one link of a namespace, or None; far cheaper than asking for all."""
    try:
        (message,) = socket.link("get", ifname=name)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    return _link(message)


def links(socket: IPRoute) -> dict[str, Link]:
    """Return the links of a namespace by name."""
    return {link.name: link for link in map(_link, socket.get_links())}


def addresses(socket: IPRoute) -> dict[int, set[str]]:
    """Return the addresses of each link by its index, in CIDR form; link-local ones the kernel made are left out."""
    found: dict[int, set[str]] = {}
    for message in socket.get_addr():
        if message["scope"] == SCOPE_LINK:
            continue
        text = message.get("local") or message.get("address")
        interface = ipaddress.ip_interface(f"{text}/{message['prefixlen']}")
        found.setdefault(message["index"], set()).add(str(interface))
    return found


def routes(socket: IPRoute) -> dict[str, str]:
    """Return the gateways of our routes in the main table by destination (`default`, `default6` or a CIDR)."""
    found: dict[str, str] = {}
    for message in socket.get_routes(table=MAIN_TABLE):
        if message["proto"] == ROUTE_PROTOCOL and message.get("table") == MAIN_TABLE:
            default = "default6" if message["family"] == 10 else "default"
            destination = f"{message.get('dst')}/{message['dst_len']}" if message["dst_len"] else default
            found[destination] = str(message.get("gateway"))
    return found


def _link(message: Any) -> Link:
    return Link(
        index=message["index"],
        name=str(message.get("ifname")),
        kind=str(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""),
        mac=str(message.get("address") or ""),
        alias=str(message.get("ifalias") or ""),
        up=bool(message["flags"] & IFF_UP),
        peer=int(message.get("link") or 0),
        master=int(message.get("master") or 0),
        isolated=bool(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_ISOLATED")),
    )

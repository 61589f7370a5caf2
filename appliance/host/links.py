"""The netlink sockets through which links, addresses and routes are made, and what one link is.

Everything here runs in the helper thread of `Namespaces`.
"""

import errno
from collections.abc import Iterable
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.host.dump import IFF_UP, Link
from appliance.host.netns import Namespaces
from appliance.topology import HOST

OURS = "alpha-ren"
"""Alias of every link of ours; a bridge has its name behind it, a moved NIC its name on the host."""

BRIDGE = f"{OURS}="
NIC = f"{OURS}:"

MOST_OPEN = 32
"""Sockets kept for the namespace that comes next; each takes memory and four open files."""


class Sockets:
    """Netlink sockets in namespaces: those used last are kept open; one of a namespace that was replaced is closed."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._open: dict[str, tuple[int | None, IPRoute]] = {}

    def of(self, name: str) -> IPRoute:
        """Return a socket in that namespace."""
        inode = self._namespaces.inode(name)
        if name in self._open:
            opened_in, socket = self._open[name]
            if opened_in == inode:
                self._open[name] = self._open.pop(name)
                return socket
            self.drop(name)
        with self._namespaces.inside(name):
            socket = IPRoute()
        self._open[name] = (inode, socket)
        while len(self._open) > MOST_OPEN:
            self.drop(next(iter(self._open)))
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


def _link(message: Any) -> Link:
    return Link(
        index=message["index"],
        name=str(message.get("ifname")),
        kind=str(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""),
        mac=str(message.get("address") or ""),
        alias=str(message.get("ifalias") or ""),
        up=bool(message["flags"] & IFF_UP),
        mtu=int(message.get("mtu") or 0),
        peer=int(message.get("link") or 0),
        master=int(message.get("master") or 0),
        isolated=bool(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_ISOLATED")),
    )

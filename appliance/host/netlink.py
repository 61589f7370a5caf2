"""Makes namespaces, bridges, legs, NICs, WireGuard interfaces and routes true in the kernel. Each step may be repeated.

Everything here runs in the helper thread of `Namespaces`.
"""

import errno
import ipaddress
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.errors import ApplianceError
from appliance.host.dump import Link, see
from appliance.host.links import OURS, ROUTE_PROTOCOL, Sockets, link
from appliance.host.netns import KernelRefused, Namespaces
from appliance.topology import HOST, Bridge, Namespace, Nic, Noun, Route, Veth, WireGuard

IFA_F_NODAD = 0x02
SYSCTL = Path("/proc/sys/net")
FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


class KernelLacks(ApplianceError):
    """This kernel cannot do it at all, now or later; `missing` is the key of the noun that it is about."""

    code = "kernel-lacks"
    hint = "The rest of the machine runs without it; a kernel of the firmware's own has it."

    def __init__(self, message: str, missing: str) -> None:
        super().__init__(message)
        self.missing = missing


class Netlink:
    """Makes the nouns of the network true, one at a time."""

    def __init__(self, namespaces: Namespaces, sockets: Sockets) -> None:
        self._namespaces = namespaces
        self._sockets = sockets

    def make(self, noun: Noun) -> None:
        """Make one noun true, whatever there is already; raise KernelRefused or KernelLacks."""
        try:
            match noun:
                case Namespace():
                    self._namespace(noun)
                case Bridge():
                    self._bridge(noun)
                case Veth():
                    self._veth(noun)
                case Nic():
                    self._nic(noun)
                case WireGuard():
                    self._wireguard(noun)
                case Route():
                    self._route(noun)
                case _:
                    raise TypeError(noun)
        except NetlinkError as error:
            raise KernelRefused(f"The kernel refused {noun.key}: {error}.") from error

    def remove(self, noun: Noun) -> None:
        """Remove what a noun says is there; what is gone already is no error."""
        try:
            match noun:
                case Namespace():
                    self._sockets.drop(noun.name)
                    self._namespaces.remove(noun.name)
                case Bridge():
                    self._delete(HOST, noun.name)
                case Veth() | WireGuard():
                    self._delete(noun.namespace, noun.name)
                case Nic():
                    self._give_back(noun)
                case Route():
                    self._sockets.of(noun.namespace).route("del", **_destination(noun), proto=ROUTE_PROTOCOL)
                case _:
                    raise TypeError(noun)
        except NetlinkError as error:
            if error.code not in (errno.ENODEV, errno.ESRCH, errno.ENOENT):
                raise KernelRefused(f"The kernel refused to remove {noun.key}: {error}.") from error

    def sysctl(self, namespace: str, name: str) -> str:
        """Return a value below /proc/sys/net as the namespace sees it, empty where there is no such name."""
        with self._namespaces.inside(namespace):
            try:
                return (SYSCTL / name).read_text().strip()
            except FileNotFoundError:
                return ""

    def _namespace(self, namespace: Namespace) -> None:
        if self._namespaces.inode(namespace.name) is None:
            self._sockets.drop(namespace.name)
            self._namespaces.make(namespace.name)
        socket = self._sockets.of(namespace.name)
        socket.link("set", index=_there(socket, "lo").index, state="up")
        # Forwarding first: turning it on or off resets others (ip-sysctl: accept_redirects among them).
        forwarding = "1" if namespace.forwarding else "0"
        values = {} if namespace.name == HOST else dict.fromkeys(FORWARDING, forwarding)
        values |= dict(namespace.sysctls)
        with self._namespaces.inside(namespace.name):
            for name, value in values.items():
                # Writing it again would not be free: it can reset what hangs on it.
                if (SYSCTL / name).read_text().strip() != value:
                    (SYSCTL / name).write_text(value)

    def _bridge(self, bridge: Bridge) -> None:
        socket = self._sockets.of(HOST)
        if link(socket, bridge.name) is None:
            # No snooping: without a querier on the segment it would lose neighbour solicitations.
            socket.link(
                "add", ifname=bridge.name, kind="bridge", br_mcast_snooping=0, br_stp_state=0, br_forward_delay=0
            )
        socket.link("set", index=_there(socket, bridge.name).index, ifalias=OURS, state="up")

    def _veth(self, veth: Veth) -> None:
        host, inside = self._sockets.of(HOST), self._sockets.of(veth.namespace)
        outer, inner = link(host, veth.host_name), link(inside, veth.name)
        if outer is None or inner is None or not _paired(outer, inner):
            for socket, half in ((inside, inner), (host, outer)):
                if half is not None:
                    socket.link("del", index=half.index)
            with self._namespaces.open(veth.namespace) as descriptor:
                peer = {"ifname": veth.name, "net_ns_fd": descriptor, "address": veth.mac}
                host.link("add", ifname=veth.host_name, kind="veth", peer=peer)
            outer, inner = _there(host, veth.host_name), _there(inside, veth.name)
        if inner.mac != veth.mac:
            inside.link("set", index=inner.index, address=veth.mac)
        bridge = _there(host, veth.bridge)
        host.link("set", index=outer.index, master=bridge.index, ifalias=OURS, state="up")
        host.brport("set", index=outer.index, isolated=int(veth.isolated))
        inside.link("set", index=inner.index, state="up")
        self._address(veth.namespace, inner.index, veth.addresses)

    def _nic(self, nic: Nic) -> None:
        inside = self._sockets.of(nic.namespace)
        there = link(inside, nic.name)
        if there is None:
            host = self._sockets.of(HOST)
            here = link(host, nic.match)
            if here is None:
                raise KernelRefused(f"The network interface {nic.match} is not there.")
            # The alias travels with the NIC, so a supervisor that starts later knows which one it was.
            host.link("set", index=here.index, state="down", ifalias=f"{OURS}:{nic.match}")
            with self._namespaces.open(nic.namespace) as descriptor:
                host.link("set", index=here.index, net_ns_fd=descriptor, ifname=nic.name)
            there = _there(inside, nic.name)
        inside.link("set", index=there.index, state="up")
        if nic.addresses:
            self._address(nic.namespace, there.index, nic.addresses)

    def _give_back(self, nic: Nic) -> None:
        inside = self._sockets.of(nic.namespace)
        there = link(inside, nic.name)
        if there is not None:
            inside.link("set", index=there.index, state="down")
            with self._namespaces.open(HOST) as descriptor:
                inside.link("set", index=there.index, net_ns_fd=descriptor, ifname=nic.match or nic.name)

    def _wireguard(self, wireguard: WireGuard) -> None:
        # Imported late: few boxes have a VPN, and generic netlink costs memory.
        from appliance.host.wireguard import configure

        inside = self._sockets.of(wireguard.namespace)
        if link(inside, wireguard.name) is None:
            try:
                inside.link("add", ifname=wireguard.name, kind="wireguard")
            except NetlinkError as error:
                if error.code == errno.EOPNOTSUPP:
                    raise KernelLacks(
                        f"This kernel has no WireGuard, so {wireguard.key} is missing.", wireguard.key
                    ) from error
                raise
        index = _there(inside, wireguard.name).index
        with self._namespaces.inside(wireguard.namespace):
            configure(wireguard)
        inside.link("set", index=index, ifalias=OURS, state="up")
        self._address(wireguard.namespace, index, wireguard.addresses)

    def _route(self, route: Route) -> None:
        socket = self._sockets.of(route.namespace)
        socket.route("replace", **_destination(route), gateway=route.gateway, proto=ROUTE_PROTOCOL)

    def _address(self, namespace: str, index: int, wanted: tuple[str, ...]) -> None:
        """Give a link exactly these addresses; without duplicate address detection, which would delay every bind."""
        socket = self._sockets.of(namespace)
        have = see(self._namespaces, namespace).addresses.get(index, set())
        for text in have - set(wanted):
            socket.addr("del", index=index, **_parts(text))
        for text in wanted:
            if text not in have:
                nodad = {"flags": IFA_F_NODAD} if ":" in text else {}
                socket.addr("add", index=index, **_parts(text), **nodad)

    def _delete(self, namespace: str, name: str) -> None:
        socket = self._sockets.of(namespace)
        found = link(socket, name)
        if found is not None:
            socket.link("del", index=found.index)


def _there(socket: IPRoute, name: str) -> Link:
    found = link(socket, name)
    if found is None:
        raise KernelRefused(f"The link {name} is not there.")
    return found


def _paired(outer: Link, inner: Link) -> bool:
    """Whether two links are the two ends of one veth."""
    return outer.kind == inner.kind == "veth" and outer.peer == inner.index and inner.peer == outer.index


def _parts(text: str) -> dict[str, str | int]:
    interface = ipaddress.ip_interface(text)
    return {"address": str(interface.ip), "prefixlen": interface.network.prefixlen}


def _destination(route: Route) -> dict[str, str | int]:
    match route.destination:
        case "default":
            return {"dst": "default", "family": 2}
        case "default6":
            return {"dst": "default", "family": 10}
        case cidr:
            return {"dst": cidr}

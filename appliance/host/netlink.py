"""Makes namespaces, bridges, legs, taps, NICs, WireGuard interfaces and routes true in the kernel, as often as needed.

Everything here runs in the helper thread of `Namespaces`.
"""

import errno
import ipaddress
from pathlib import Path
from socket import AF_INET, AF_INET6

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.errors import ApplianceError
from appliance.host.dump import Link, see
from appliance.host.links import BRIDGE, NIC, OURS, Sockets, link
from appliance.host.netns import KernelRefused, Namespaces
from appliance.topology import (
    HOST,
    Bond,
    Bridge,
    Interface,
    Namespace,
    Nic,
    Noun,
    Route,
    Stray,
    Tap,
    Veth,
    Vlan,
    WireGuard,
)

IFA_F_NODAD = 0x02
# linux/rtnetlink.h: RT_SCOPE_NOWHERE and RTN_UNSPEC, which match every route.
NOWHERE, ANY_TYPE = 255, 0
SYSCTL = Path("/proc/sys/net")
BONDING = {"bond_miimon": 100, "bond_ad_lacp_rate": 1, "bond_xmit_hash_policy": 1}
"""A carrier is looked at every 100 ms, the neighbour says every second that it is there, and a connection stays on one
port, told by addresses and ports (linux/if_bonding.h: layer 3+4).
"""
FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


class KernelLacks(ApplianceError):
    """This kernel cannot do it at all, now or later; `missing` is what it is about."""

    code = "kernel-lacks"
    hint = "The rest of the machine runs without it; a kernel of the firmware's own has it."

    def __init__(self, message: str, missing: Noun) -> None:
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
                case Tap():
                    self._tap(noun)
                case Nic():
                    self._nic(noun)
                case Bond():
                    self._bond(noun)
                case Vlan():
                    self._vlan(noun)
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
                    self._remove(HOST, noun.found_as or noun.name)
                case Veth() | Tap() | WireGuard() | Bond() | Vlan():
                    self._remove(noun.namespace, noun.found_as or noun.name)
                case Stray():
                    self._stray(noun)
                case Nic():
                    self._give_back(noun)
                case Route():
                    # Whatever its scope and type: what it goes to and who made it is enough to know it by.
                    self._sockets.of(noun.namespace).route("del", **_route(noun), scope=NOWHERE, type=ANY_TYPE)
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
        lo = _there(socket, "lo").index
        socket.link("set", index=lo, state="up")
        if namespace.name != HOST:
            self._address(namespace.name, lo, namespace.loopback)
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
        renamed = self._with_alias(HOST, f"{BRIDGE}{bridge.name}")
        if renamed is not None:
            _called(socket, renamed, bridge.name)
        elif link(socket, bridge.name) is None:
            # No snooping: without a querier on the segment it would lose neighbour solicitations.
            socket.link(
                "add", ifname=bridge.name, kind="bridge", br_mcast_snooping=0, br_stp_state=0, br_forward_delay=0
            )
        there = _there(socket, bridge.name)
        socket.link("set", index=there.index, ifalias=f"{BRIDGE}{bridge.name}", state="up")
        if there.mtu != bridge.mtu:
            socket.link("set", index=there.index, mtu=bridge.mtu)

    def _veth(self, veth: Veth) -> None:
        host, inside = self._sockets.of(HOST), self._sockets.of(veth.namespace)
        outer, inner = self._halves(veth)
        if outer is None or inner is None or not _paired(outer, inner):
            for socket, half in ((inside, inner), (host, outer)):
                if half is not None:
                    _delete(socket, half)
            with self._namespaces.open(veth.namespace) as descriptor:
                peer = {"ifname": veth.name, "net_ns_fd": descriptor, "address": veth.mac}
                host.link("add", ifname=veth.host_name, kind="veth", peer=peer)
            outer, inner = _there(host, veth.host_name), _there(inside, veth.name)
        _called(host, outer, veth.host_name)
        _called(inside, inner, veth.name)
        if inner.mac != veth.mac:
            inside.link("set", index=inner.index, address=veth.mac)
        for socket, half in ((inside, inner), (host, outer)):
            if half.mtu != veth.mtu:
                socket.link("set", index=half.index, mtu=veth.mtu)
        bridge = _there(host, veth.bridge)
        host.link("set", index=outer.index, master=bridge.index, ifalias=OURS, state="up")
        host.brport("set", index=outer.index, isolated=int(veth.isolated))
        inside.link("set", index=inner.index, state="up")
        self._address(veth.namespace, inner.index, veth.addresses)

    def _halves(self, veth: Veth) -> tuple[Link | None, Link | None]:
        """Return both ends of a leg; where one has another name, it is found by the other."""
        outer = link(self._sockets.of(HOST), veth.host_name)
        inner = link(self._sockets.of(veth.namespace), veth.name)
        if outer is not None and (inner is None or not _paired(outer, inner)):
            others = see(self._namespaces, veth.namespace).links.values()
            inner = next((other for other in others if _paired(outer, other)), inner)
        elif outer is None and inner is not None:
            others = see(self._namespaces, HOST).links.values()
            outer = next((other for other in others if other.alias == OURS and _paired(other, inner)), None)
        return outer, inner

    def _tap(self, tap: Tap) -> None:
        inside = self._sockets.of(tap.namespace)
        there = link(inside, tap.name)
        if there is not None and (there.kind, there.group) != ("tun", tap.group):
            _delete(inside, there)
            there = None
        if there is None:
            # Made by an ioctl of this thread (Linux, Documentation/networking/tuntap.rst), where the thread is.
            with self._namespaces.inside(tap.namespace):
                inside.link("add", ifname=tap.name, kind="tuntap", mode="tap", gid=tap.group)
            there = _there(inside, tap.name)
        if there.mac != tap.mac:
            inside.link("set", index=there.index, address=tap.mac)
        inside.link("set", index=there.index, ifalias=OURS, state="up")
        self._address(tap.namespace, there.index, tap.addresses)

    def _nic(self, nic: Nic) -> None:
        inside = self._sockets.of(nic.namespace)
        there = self._with_alias(nic.namespace, f"{NIC}{nic.match}")
        if there is not None:
            _called(inside, there, nic.name)
        else:
            host = self._sockets.of(HOST)
            here = link(host, nic.match)
            if here is None:
                raise KernelRefused(f"The network interface {nic.match} is not there.")
            # The alias travels with the NIC, so a supervisor that starts later knows which one it was.
            host.link("set", index=here.index, state="down", ifalias=f"{NIC}{nic.match}")
            with self._namespaces.open(nic.namespace) as descriptor:
                host.link("set", index=here.index, net_ns_fd=descriptor, ifname=nic.name)
            there = _there(inside, nic.name)
        inside.link("set", index=there.index, state="up")
        self._address(nic.namespace, there.index, nic.addresses, nic.leased)

    def _give_back(self, nic: Nic) -> None:
        inside = self._sockets.of(nic.namespace)
        there = link(inside, nic.found_as or nic.name)
        if there is not None:
            inside.link("set", index=there.index, state="down")
            with self._namespaces.open(HOST) as descriptor:
                inside.link("set", index=there.index, net_ns_fd=descriptor, ifname=nic.match or nic.name)

    def _bond(self, bond: Bond) -> None:
        inside = self._sockets.of(bond.namespace)
        there = see(self._namespaces, bond.namespace).links.get(bond.name)
        if there is not None and (there.kind, there.mode) != ("bond", bond.mode):
            _delete(inside, there)
            there = None
        if there is None:
            self._add(bond, "bonds", kind="bond", bond_mode=bond.mode, **BONDING)
        index = _there(inside, bond.name).index
        links = see(self._namespaces, bond.namespace).links
        for port in links.values():
            if port.master == index and port.name not in bond.ports:
                inside.link("set", index=port.index, master=0)
        for name in bond.ports:
            port = _there(inside, name)
            if port.master != index:
                # Only one that is down may become a port; the bond brings it up.
                inside.link("set", index=port.index, state="down")
                inside.link("set", index=port.index, master=index)
        inside.link("set", index=index, ifalias=OURS, state="up")
        self._address(bond.namespace, index, bond.addresses, bond.leased)

    def _vlan(self, vlan: Vlan) -> None:
        inside = self._sockets.of(vlan.namespace)
        parent = _there(inside, vlan.parent).index
        there = see(self._namespaces, vlan.namespace).links.get(vlan.name)
        if there is not None and (there.kind, there.tag, there.peer) != ("vlan", vlan.tag, parent):
            _delete(inside, there)
            there = None
        if there is None:
            self._add(vlan, "VLANs", kind="vlan", link=parent, vlan_id=vlan.tag)
        index = _there(inside, vlan.name).index
        # A card that has just left a bond is down, and a VLAN cannot be up above it.
        inside.link("set", index=parent, state="up")
        inside.link("set", index=index, ifalias=OURS, state="up")
        self._address(vlan.namespace, index, vlan.addresses, vlan.leased)

    def _add(self, noun: Interface, what: str, **words: str | int) -> None:
        """Add a link; raise KernelLacks where the kernel knows none of that kind."""
        try:
            self._sockets.of(noun.namespace).link("add", ifname=noun.name, **words)
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                raise KernelLacks(f"This kernel has no {what}, so {noun.key} is missing.", noun) from error
            raise

    def _wireguard(self, wireguard: WireGuard) -> None:
        # Imported late: few boxes have a VPN, and generic netlink costs memory.
        from appliance.host.wireguard import configure

        inside = self._sockets.of(wireguard.namespace)
        if link(inside, wireguard.name) is None:
            self._add(wireguard, "WireGuard", kind="wireguard")
        index = _there(inside, wireguard.name).index
        with self._namespaces.inside(wireguard.namespace):
            configure(wireguard)
        inside.link("set", index=index, ifalias=OURS, state="up")
        self._address(wireguard.namespace, index, wireguard.addresses)

    def _route(self, route: Route) -> None:
        socket = self._sockets.of(route.namespace)
        on = {"oif": _there(socket, route.device).index} if route.device else {}
        socket.route("replace", **_route(route), **on)

    def _stray(self, stray: Stray) -> None:
        socket = self._sockets.of(stray.namespace)
        found = link(socket, stray.name)
        if found is not None and stray.namespace == HOST:
            socket.link("set", index=found.index, master=0)
        elif found is not None:
            _delete(socket, found)

    def _with_alias(self, namespace: str, alias: str) -> Link | None:
        """Return the link that was given this alias, whatever its name is now."""
        links = see(self._namespaces, namespace).links.values()
        return next((each for each in links if each.alias == alias), None)

    def _address(self, namespace: str, index: int, wanted: tuple[str, ...], leased: tuple[int, ...] = ()) -> None:
        """Give a link exactly these addresses, but for those of a `leased` version; without duplicate address
        detection, which would delay every bind.
        """
        socket = self._sockets.of(namespace)
        seen = see(self._namespaces, namespace)
        have, lent = seen.addresses.get(index, set()), seen.lent.get(index, set())
        not_ours = {text for text in have if text not in wanted or text in lent}
        going = {text for text in not_ours if (6 if ":" in text else 4) not in leased}
        for text in going:
            socket.addr("del", index=index, **_parts(text))
        for text in wanted:
            if text not in have or text in going:
                nodad = {"flags": IFA_F_NODAD} if ":" in text else {}
                socket.addr("add", index=index, **_parts(text), **nodad)

    def _remove(self, namespace: str, name: str) -> None:
        socket = self._sockets.of(namespace)
        found = link(socket, name)
        if found is not None:
            _delete(socket, found)


def _delete(socket: IPRoute, found: Link) -> None:
    """Delete a link; it may go by itself meanwhile, as the host's end of a leg does with the other's namespace."""
    try:
        socket.link("del", index=found.index)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


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


def _called(socket: IPRoute, found: Link, name: str) -> None:
    """Give a link its name back."""
    if found.name != name:
        socket.link("set", index=found.index, ifname=name)


def _route(route: Route) -> dict[str, str | int]:
    is_six = route.destination == "default6" or ":" in route.destination
    words: dict[str, str | int] = {
        "dst": "default" if route.destination in ("default", "default6") else route.destination,
        "family": AF_INET6 if is_six else AF_INET,
        "proto": route.protocol,
    }
    if route.gateway:
        words["gateway"] = route.gateway
    if route.metric:
        words["priority"] = route.metric
    return words

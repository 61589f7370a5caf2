"""What is there, in the nouns of what should be. Runs in the helper thread of `Namespaces`.

What was seen is kept, and only what may have changed since is looked at again. The wanted machine is a hint of where to
look (which sysctls, which rulesets), never of what is found.
"""

from collections.abc import Iterable, Iterator

import msgspec

from appliance.host.dump import Link, Seen, see
from appliance.host.events import Stale
from appliance.host.firewall import Firewall
from appliance.host.links import BRIDGE, NIC, OURS, Sockets
from appliance.host.netlink import FORWARDING, Netlink
from appliance.host.netns import Namespaces
from appliance.topology import (
    HOST,
    ROUTE_PROTOCOL,
    Bond,
    Bridge,
    Machine,
    Namespace,
    Nic,
    Observed,
    Route,
    Ruleset,
    Stray,
    Tap,
    Veth,
    Vlan,
    WireGuard,
)

CARD_KINDS = ("", "veth", "macvlan", "ipvlan")
"""A card of hardware has no kind; a container's cards are the others."""

STRAY_KINDS = (
    *("veth", "dummy", "bridge", "bond", "vlan", "macvlan", "ipvlan", "vxlan", "ifb", "vrf", "wireguard", "tun"),
)
"""What somebody may have made in a namespace; the kernel makes tunnels there by itself."""

LINK_LOCAL = "fe80:"
KERNEL = 2
"""Protocol of the routes that the kernel makes along with an address."""


class Observer:
    """Knows the kernel's state as it was at the last `look`."""

    def __init__(self, namespaces: Namespaces, sockets: Sockets, netlink: Netlink, firewall: Firewall) -> None:
        self._namespaces = namespaces
        self._sockets = sockets
        self._netlink = netlink
        self._firewall = firewall
        self._seen: dict[str, Seen] = {}
        self._listed: dict[str, str] = {}
        self._values: dict[str, dict[str, str]] = {}
        self._guards: dict[str, WireGuard] = {}

    def look(self, stale: Stale) -> None:
        """Look again at what is stale, and at namespaces that are new or were replaced."""
        inodes = self._namespaces.inodes()
        for name, seen in list(self._seen.items()):
            if stale.everything or inodes.get(name) != seen.inode:
                self._forget(name)
        for name in stale.rules:
            self._listed.pop(name, None)
        for name in stale.sysctls:
            self._values.pop(name, None)
        for name in inodes:
            if name in stale.links or name not in self._seen:
                self._guards = {key: each for key, each in self._guards.items() if each.namespace != name}
                self._seen[name] = see(self._namespaces, name)
        # In the same order whatever was looked at last, so that the same is told in the same way.
        self._seen = {name: self._seen[name] for name in inodes}
        self._sockets.keep(inodes)

    def network(self, wanted: Machine) -> Observed:
        """Return everything but units and files."""
        inner = [name for name in self._seen if name != HOST]
        hints = {namespace.name: namespace for namespace in wanted.namespaces}
        names = (HOST, *inner) if HOST in hints else inner
        machine = Machine(
            namespaces=tuple(self._namespace(hints.get(name, Namespace(name=name))) for name in names),
            bridges=tuple(_bridges(self._seen[HOST])),
            veths=tuple(_veths(self._seen, wanted)),
            taps=tuple(tap for name in inner for tap in _taps(name, self._seen[name], wanted)),
            nics=tuple(nic for name in inner for nic in _nics(name, self._seen[name], wanted)),
            bonds=tuple(bond for name in inner for bond in _bonds(name, self._seen[name], wanted)),
            vlans=tuple(vlan for name in inner for vlan in _vlans(name, self._seen[name], wanted)),
            wireguards=tuple(each for name in inner for each in self._wireguards(name, self._seen[name], wanted)),
            strays=tuple(_strays(self._seen)),
            routes=tuple(route for name in inner for route in _routes(name, self._seen[name], wanted)),
            rulesets=tuple(self._rulesets(wanted.rulesets)),
        )
        return Observed(machine=machine)

    def moved(self) -> tuple[tuple[str, str, Link], ...]:
        """Return (namespace, name on the host, link) of every NIC that was moved."""
        return tuple(
            (name, link.alias.removeprefix(NIC), link)
            for name, seen in self._seen.items()
            for link in seen.links.values()
            if name != HOST and link.alias.startswith(NIC)
        )

    def spare(self) -> tuple[Link, ...]:
        """Return the links on the host that are cards: neither made by us nor part of something else."""
        return tuple(
            link
            for link in sorted(self._seen[HOST].links.values(), key=lambda link: link.name)
            if link.name != "lo" and link.mac and not link.master and link.alias != OURS and link.kind in CARD_KINDS
        )

    def outer(self, namespace: str) -> dict[str, tuple[str, ...]]:
        """Return the addresses (CIDR form) of the cards that were moved into a namespace, and of what they carry, by
        interface.
        """
        if namespace not in self._seen:
            return {}
        seen = self._seen[namespace]
        cards = [link for link in seen.links.values() if link.alias.startswith(NIC) or _is_carried(link)]
        return {card.name: tuple(sorted(seen.addresses.get(card.index, ()))) for card in cards}

    def _forget(self, name: str) -> None:
        for kept in (self._seen, self._listed, self._values):
            kept.pop(name, None)

    def _namespace(self, hint: Namespace) -> Namespace:
        values = tuple((name, self._value(hint.name, name)) for name, _ in hint.sysctls)
        if hint.name == HOST:
            return Namespace(name=HOST, sysctls=values)
        forwarding = [self._value(hint.name, name) for name in FORWARDING]
        # Half of it is neither: it is said as the opposite of what is wanted, so that it gets mended.
        router = forwarding[0] == "1" if len(set(forwarding)) == 1 else not hint.forwarding
        return Namespace(
            name=hint.name, forwarding=router, loopback=_loopback(self._seen.get(hint.name), hint), sysctls=values
        )

    def _value(self, namespace: str, name: str) -> str:
        values = self._values.setdefault(namespace, {})
        if name not in values:
            values[name] = self._netlink.sysctl(namespace, name)
        return values[name]

    def _rulesets(self, wanted: Iterable[Ruleset]) -> Iterator[Ruleset]:
        for ruleset in wanted:
            if ruleset.namespace in self._seen:
                if ruleset.namespace not in self._listed:
                    self._listed[ruleset.namespace] = self._firewall.listed(ruleset.namespace)
                in_force = self._listed[ruleset.namespace]
                same = in_force == self._firewall.canonical(ruleset.text)
                yield ruleset if same else Ruleset(namespace=ruleset.namespace, text=in_force)

    def _wireguards(self, name: str, seen: Seen, wanted: Machine) -> Iterator[WireGuard]:
        hints = {each.key: each for each in wanted.wireguards}
        for link in seen.links.values():
            if link.kind == "wireguard" and link.alias == OURS:
                blank = WireGuard(namespace=name, name=link.name, listen_port=0, key_file="", addresses=(), peers=())
                hint = hints.get(blank.key)
                if hint is None:
                    yield blank
                    continue
                if hint.key not in self._guards:
                    from appliance.host.wireguard import observe

                    with self._namespaces.inside(name):
                        self._guards[hint.key] = observe(hint)
                have = _in_order(seen.addresses.get(link.index, set()), hint.addresses)
                yield msgspec.structs.replace(self._guards[hint.key], addresses=have, up=link.up)


def _loopback(seen: Seen | None, hint: Namespace) -> tuple[str, ...]:
    lo = seen.links.get("lo") if seen is not None else None
    return (
        () if seen is None or lo is None or not lo.up else _in_order(seen.addresses.get(lo.index, set()), hint.loopback)
    )


def _bridges(host: Seen) -> Iterator[Bridge]:
    for link in host.links.values():
        if link.kind == "bridge" and link.alias.startswith(BRIDGE):
            name = _bridge_name(link)
            yield Bridge(name=name, up=link.up, mtu=link.mtu, found_as="" if link.name == name else link.name)


def _bridge_name(link: Link) -> str:
    """Return the name that a bridge of ours was made with, of another one the name that it has."""
    return link.alias.removeprefix(BRIDGE) if link.alias.startswith(BRIDGE) else link.name


def _strays(seen: dict[str, Seen]) -> Iterator[Stray]:
    """Yield the links in our namespaces that are no leg, tap, moved NIC or tunnel of ours, and foreign ports of our
    bridges.
    """
    host = {link.index: link for link in seen[HOST].links.values()}
    for name, inside in seen.items():
        for link in inside.links.values():
            if name == HOST:
                master = host.get(link.master)
                stray = master is not None and master.alias.startswith(BRIDGE) and not link.alias.startswith(OURS)
            else:
                stray = link.kind in STRAY_KINDS and not link.alias.startswith(OURS) and not _is_leg(link, host)
            if stray:
                yield Stray(namespace=name, name=link.name, up=link.up)


def _is_leg(link: Link, host: dict[int, Link]) -> bool:
    """Whether it is a veth whose other end is a link of ours on the host."""
    outer = host.get(link.peer)
    return link.kind == "veth" and outer is not None and outer.peer == link.index and outer.alias == OURS


def _routes(name: str, seen: Seen, wanted: Machine) -> Iterator[Route]:
    """Yield what was routed in a namespace; where addresses are leased, others than we do it, too."""
    leased = _leased(name, seen, wanted)
    names = {link.index: link.name for link in seen.links.values()}
    for way in seen.ways:
        version = 6 if way.destination == "default6" or ":" in way.destination else 4
        if way.protocol == ROUTE_PROTOCOL or not (version in leased or way.protocol == KERNEL):
            yield Route(
                namespace=name,
                destination=way.destination,
                gateway=way.gateway,
                device=names.get(way.device, "") if way.gateway.startswith(LINK_LOCAL) else "",
                metric=way.metric,
                protocol=way.protocol,
            )


def _leased(name: str, seen: Seen, wanted: Machine) -> set[int]:
    """Return the IP versions that somebody else may give addresses and routes of."""
    carriers: tuple[Nic | Bond | Vlan, ...] = (*wanted.nics, *wanted.bonds, *wanted.vlans)
    hints = [each for each in carriers if each.namespace == name]
    if not hints and any(link.alias.startswith(NIC) for link in seen.links.values()):
        return {4, 6}
    return {version for each in hints for version in each.leased}


def _not_leased(addresses: Iterable[str], leased: tuple[int, ...]) -> set[str]:
    return {text for text in addresses if (6 if ":" in text else 4) not in leased}


def _is_carried(link: Link) -> bool:
    return link.kind in ("bond", "vlan") and link.alias == OURS


def _bonds(name: str, seen: Seen, wanted: Machine) -> Iterator[Bond]:
    hints = {bond.key: bond for bond in wanted.bonds}
    for link in seen.links.values():
        if link.kind == "bond" and _is_carried(link):
            found = Bond(
                namespace=name,
                name=link.name,
                up=link.up,
                mode=link.mode,
                ports=tuple(sorted(port.name for port in seen.links.values() if port.master == link.index)),
            )
            hint = hints.get(found.key, found)
            yield msgspec.structs.replace(
                found, ports=_in_order(set(found.ports), hint.ports), **_given(link, seen, hint)
            )


def _vlans(name: str, seen: Seen, wanted: Machine) -> Iterator[Vlan]:
    hints = {vlan.key: vlan for vlan in wanted.vlans}
    names = {link.index: link.name for link in seen.links.values()}
    for link in seen.links.values():
        if link.kind == "vlan" and _is_carried(link):
            parent = names.get(link.peer, "")
            found = Vlan(namespace=name, name=link.name, up=link.up, parent=parent, tag=link.tag)
            yield msgspec.structs.replace(found, **_given(link, seen, hints.get(found.key, found)))


def _given(link: Link, seen: Seen, hint: Nic | Bond | Vlan) -> dict[str, tuple[str, ...] | tuple[int, ...]]:
    """Return the addresses of a link that nobody else gave it, and whose others are somebody else's."""
    lent = seen.lent.get(link.index, set()).intersection(hint.addresses)
    have = _not_leased(seen.addresses.get(link.index, set()) - lent, hint.leased)
    return {"addresses": _in_order(have, hint.addresses), "leased": hint.leased}


def _veths(seen: dict[str, Seen], wanted: Machine) -> Iterator[Veth]:
    """Yield the legs in all namespaces: veths whose other end is a link of ours on the host.

    A moved NIC may be a veth too, whose other end is elsewhere: the number of that says nothing about links here.
    """
    by_name = {veth.key: veth for veth in wanted.veths}
    by_host_name = {(veth.namespace, veth.host_name): veth for veth in wanted.veths}
    host = {link.index: link for link in seen[HOST].links.values()}
    for name, inside in seen.items():
        for link in inside.links.values() if name != HOST else ():
            if link.alias.startswith(NIC) or not _is_leg(link, host):
                continue
            outer = host[link.peer]
            hint = by_host_name.get((name, outer.name)) or by_name.get(f"{name}/{link.name}")
            called = link.name if hint is None else hint.name
            master = host.get(outer.master)
            yield Veth(
                namespace=name,
                name=called,
                up=link.up and outer.up,
                found_as="" if link.name == called else link.name,
                host_name=outer.name,
                mac=link.mac,
                bridge="" if master is None else _bridge_name(master),
                isolated=outer.isolated,
                mtu=link.mtu if hint is not None and link.mtu != hint.mtu else outer.mtu,
                addresses=_in_order(inside.addresses.get(link.index, set()), hint.addresses if hint else ()),
            )


def _taps(name: str, seen: Seen, wanted: Machine) -> Iterator[Tap]:
    hints = {tap.key: tap for tap in wanted.taps}
    for link in seen.links.values():
        if link.kind == "tun" and link.alias == OURS:
            hint = hints.get(f"{name}/{link.name}")
            found = _in_order(seen.addresses.get(link.index, set()), hint.addresses if hint else ())
            yield Tap(namespace=name, name=link.name, up=link.up, mac=link.mac, group=link.group, addresses=found)


def _nics(name: str, seen: Seen, wanted: Machine) -> Iterator[Nic]:
    """Yield the NICs moved into a namespace; addresses that somebody else gave are not ours to compare."""
    hints = {(nic.namespace, nic.match): nic for nic in wanted.nics}
    for link in seen.links.values():
        if link.alias.startswith(NIC):
            match = link.alias.removeprefix(NIC)
            hint = hints.get((name, match))
            called = link.name if hint is None else hint.name
            found = Nic(
                namespace=name,
                name=called,
                up=link.up,
                found_as="" if link.name == called else link.name,
                match=match,
            )
            yield msgspec.structs.replace(found, **_given(link, seen, hint or found))


def _in_order(found: set[str], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The kernel's order of addresses says nothing: wanted ones come as they are wanted, the rest after them."""
    order = {text: number for number, text in enumerate(wanted)}
    return tuple(sorted(found, key=lambda text: (order.get(text, len(order)), text)))

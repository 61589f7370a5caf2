"""Machines and what may happen to them, drawn at random (hypothesis): each damage is a command a person could type."""

from collections.abc import Sequence

import msgspec
from hypothesis import strategies as st

from appliance.topology import HOST, Bridge, Machine, Namespace, Route, Ruleset, Tap, Veth

BRIDGES = ("dmz", "cluster")
SYSCTLS = (("ipv6/conf/default/accept_ra", "0"), ("ipv4/conf/all/accept_redirects", "0"))
TAP_MAC = "02:9c:00:fe:00:00"
HOST_SYSCTLS = (("ipv6/conf/default/disable_ipv6", "1"),)
RULES = (
    "tcp dport 443 accept",
    "ct state established,related accept",
    'iifname "lo" accept',
    "ip saddr { 10.0.0.1, 10.0.0.7 } udp dport 53 accept",
)


class Damage(msgspec.Struct, frozen=True):
    """A shell command in a namespace; `told` is whether the kernel tells of what it does."""

    namespace: str
    command: str
    told: bool = True


def _leg(number: int, network: int, isolated: bool) -> Veth:
    return Veth(
        namespace=f"n{number}",
        name=BRIDGES[network],
        host_name=f"ar-{number}{network}",
        bridge=BRIDGES[network],
        mac=f"02:9c:00:00:0{network}:0{number}",
        isolated=isolated,
        addresses=(f"10.{network}.0.{number}/24", f"fd00:{network + 1}::{number}/64"),
    )


def _ruleset(namespace: str, rules: Sequence[str]) -> Ruleset:
    lines = "\n".join(rules)
    head = "type filter hook input priority filter; policy drop;"
    return Ruleset(namespace=namespace, text=f"table inet alpha-ren {{\nchain input {{\n{head}\n{lines}\n}}\n}}\n")


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """One to four namespaces with legs on two bridges, cables to virtual machines, routes, rules, settings."""
    count = draw(st.integers(1, 4))
    rules = st.lists(st.sampled_from(RULES), max_size=3, unique=True)
    legs = [
        _leg(number, network, draw(st.booleans()))
        for number in range(1, count + 1)
        for network in draw(st.sets(st.sampled_from((0, 1)), min_size=1))
    ]
    ways = []
    for leg in {leg.namespace: leg for leg in legs}.values():
        network = BRIDGES.index(leg.name)
        ways += [
            Route(namespace=leg.namespace, destination="default", gateway=f"10.{network}.0.200"),
            Route(namespace=leg.namespace, destination="default6", gateway=f"fd00:{network + 1}::200"),
            Route(namespace=leg.namespace, destination="10.9.0.0/16", gateway=f"10.{network}.0.201"),
        ][draw(st.integers(0, 2)) :]
    cables = draw(st.sets(st.integers(1, count), min_size=1))
    return Machine(
        taps=tuple(
            Tap(namespace=f"n{n}", name="vm", mac=TAP_MAC, group=415, addresses=("10.99.0.1/30", "fd00:99::1/126"))
            for n in sorted(cables)
        ),
        namespaces=(
            Namespace(name=HOST, sysctls=HOST_SYSCTLS),
            *(Namespace(name=f"n{n}", forwarding=draw(st.booleans()), sysctls=SYSCTLS) for n in range(1, count + 1)),
        ),
        bridges=tuple(Bridge(name=name) for name in BRIDGES),
        veths=tuple(legs),
        routes=tuple(ways),
        rulesets=(_ruleset(HOST, ()), *(_ruleset(f"n{n}", draw(rules)) for n in range(1, count + 1))),
    )


LEG = {
    "deleted": "ip link del {leg}",
    "renamed": "ip link set {leg} name other",
    "wrong MAC": "ip link set {leg} address 02:00:00:00:00:99",
    "wrong MTU": "ip link set {leg} mtu 1400",
    "down": "ip link set {leg} down",
    "address gone": "ip addr flush dev {leg} scope global",
    "address more": "ip addr add 192.0.2.9/24 dev {leg}",
    "IPv6 address more": "ip addr add 2001:db8::9/64 dev {leg} nodad",
    "IPv6 off": "ip -6 addr flush dev {leg}",
    "on another wire": "ip link add {leg}x type veth peer name {leg}y",
}
"""In the leg's namespace."""

PORT = {
    "deleted": "ip link del {port}",
    "renamed": "ip link set {port} name other",
    "wrong MTU": "ip link set {port} mtu 1300",
    "down": "ip link set {port} down",
    "no master": "ip link set {port} nomaster",
    "wrong master": "ip link set {port} master dmz || true; ip link set {port} master cluster",
    "isolation": "bridge link set dev {port} isolated on; bridge link set dev {port} isolated off",
}
"""On the host."""

BRIDGE = {
    "deleted": "ip link del {bridge}",
    "renamed": "ip link set {bridge} name other",
    "wrong MTU": "ip link set {bridge} mtu 1400",
    "down": "ip link set {bridge} down",
    "foreign port": "ip link add more master {bridge} type veth peer name most; ip link set more master {bridge}",
}

CABLE = {
    "deleted": "ip link del {cable}",
    "renamed": "ip link set {cable} name other",
    "down": "ip link set {cable} down",
    "another in its place": "ip link del {cable}; ip tuntap add dev {cable} mode tap",
    "another group": "ip link del {cable}; ip tuntap add {cable} mode tap group 1; ip link set {cable} alias alpha-ren",
    "no TAP device": "ip link del {cable}; ip link add {cable} type veth peer name most",
    "wrong MAC": "ip link set {cable} address 02:00:00:00:00:99",
    "address gone": "ip addr flush dev {cable} scope global",
    "address more": "ip addr add 192.0.2.9/24 dev {cable}",
    "another TAP device": "ip tuntap add dev more mode tap",
}
"""In the namespace of a virtual machine."""

NAMESPACE = {
    "rules flushed": "nft flush ruleset",
    "rule more": "nft insert rule inet alpha-ren input tcp dport 22 accept",
    "rules altered": "nft flush chain inet alpha-ren input",
    "table more": "nft add table ip more",
    "open by default": "nft chain inet alpha-ren input '{ policy accept; }'",
    "routes gone": "ip route flush proto 156; ip -6 route flush proto 156",
    "route more": "ip route add 198.51.100.0/24 dev lo",
    "black hole": "ip route add blackhole 10.0.0.1/32",
    "a nearer way": "ip route add 0.0.0.0/1 dev lo; ip -6 route add 2001:db8::/32 dev lo",
    "wrong gateway": "ip route replace unreachable default",
    "loopback down": "ip link set lo down",
    "loopback address": "ip addr add 192.0.2.10/32 dev lo",
    "link more": "ip link add stray type veth peer name stray2",
    "forwarding on": "echo 1 > /proc/sys/net/ipv4/ip_forward",
    "forwarding off": "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
}

SILENT = {
    "redirects": "echo 1 > /proc/sys/net/ipv4/conf/all/accept_redirects",
    "router advertisements": "echo 1 > /proc/sys/net/ipv6/conf/default/accept_ra",
}
"""What the kernel does not tell of: only a look at everything finds it."""

REPLACED = "replaced"
REMOVED = "removed"
ORPHANED = "orphaned"
ADDED = "added"
PINS = (REPLACED, REMOVED, ORPHANED, ADDED)
"""What happens to the pin of a namespace; with ORPHANED somebody is left in the former one."""


KINDS = tuple(
    (where, kind)
    for where, kinds in (
        ("leg", tuple(LEG)),
        ("port", tuple(PORT)),
        ("bridge", tuple(BRIDGE)),
        ("cable", tuple(CABLE)),
        ("namespace", tuple(NAMESPACE)),
        ("silent", tuple(SILENT)),
        ("pin", PINS),
    )
    for kind in kinds
)
"""Every kind of damage there is: what it is done to, and which."""


def damages(machine: Machine, where: str, kind: str) -> st.SearchStrategy[Damage]:
    """Return the damages of one kind that may happen to some part of a machine."""
    namespaces = st.sampled_from([each.name for each in machine.namespaces if each.name != HOST])
    if where in ("namespace", "silent"):
        commands = {"namespace": NAMESPACE, "silent": SILENT}[where]
        return namespaces.map(lambda name: Damage(name, commands[kind], told=where != "silent"))
    if where == "pin":
        return namespaces.map(lambda name: Damage(name, kind))
    return _of_a_link(machine, where, kind)


def _of_a_link(machine: Machine, where: str, kind: str) -> st.SearchStrategy[Damage]:
    def on(namespace: str, template: str, link: str) -> Damage:
        return Damage(namespace, template.replace(f"{{{where}}}", link))

    if where == "leg":
        return st.sampled_from(machine.veths).map(lambda leg: on(leg.namespace, LEG[kind], leg.name))
    if where == "port":
        return st.sampled_from(machine.veths).map(lambda leg: on(HOST, PORT[kind], leg.host_name))
    if where == "bridge":
        return st.sampled_from(machine.bridges).map(lambda bridge: on(HOST, BRIDGE[kind], bridge.name))
    return st.sampled_from(machine.taps).map(lambda tap: on(tap.namespace, CABLE[kind], tap.name))

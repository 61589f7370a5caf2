"""The nouns of one machine: what should exist on it, with nothing said about how it comes to be.

`supervisor` computes these from configuration and hardware facts; `host` compares them with the kernel and makes them
true. What was found is said in the same nouns. Interface addresses are strings in CIDR form (`10.156.16.2/20`), ports
are numbers, protocols are `tcp` or `udp`.
"""

from typing import Literal

import msgspec

Protocol = Literal["tcp", "udp"]
LanName = Literal["cluster-lan", "management"]
"""A leg of the gateway on a LAN beside the uplink; as the source of a flow it is whoever is there."""
NetworkName = Literal["uplink", "dmz", "cluster", "cluster-lan", "management"]
LANS: tuple[LanName, ...] = ("cluster-lan", "management")
ANYWHERE = "any"
"""A flow to or from the outside world, whatever its address."""

HOST = ""
"""The namespace the supervisor itself runs in."""

LOOPBACK = ("127.0.0.1/8", "::1/128")
MTU = 1500
ROUTE_PROTOCOL = 156
"""Who made a route (rtm_protocol); a number that nobody else uses."""


class Noun(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything below: frozen, compared by value."""

    @property
    def key(self) -> str:
        """What tells it from the others of its kind, as a person would say it."""
        raise NotImplementedError


class Named(Noun, frozen=True, kw_only=True):
    """Something whose name says which one it is."""

    name: str

    @property
    def key(self) -> str:
        """The name."""
        return self.name


class Interface(Noun, frozen=True, kw_only=True):
    """An interface inside a namespace, brought up; `up` is False only where it was found down.

    `found_as` is the name under which it was found where somebody had given it another.
    """

    namespace: str
    name: str
    up: bool = True
    found_as: str = ""

    @property
    def key(self) -> str:
        """Namespace and name."""
        return f"{self.namespace}/{self.name}"


class Bridge(Named, frozen=True, kw_only=True):
    """A layer-2 segment in the host namespace; it carries no address, so the host cannot be spoken to.

    `up` and `found_as` are as for an Interface.
    """

    up: bool = True
    mtu: int = MTU
    found_as: str = ""


class Namespace(Named, frozen=True, kw_only=True):
    """A network namespace, pinned at /run/netns/NAME (HOST is just there).

    `forwarding` makes it a router; `sysctls` are names below /proc/sys/net with their values; `loopback` are the
    addresses of `lo`, none where it was found down. HOST's forwarding and loopback are not looked at.
    """

    forwarding: bool = False
    loopback: tuple[str, ...] = LOOPBACK
    sysctls: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """The name."""
        return self.name or "host"


class Veth(Interface, frozen=True, kw_only=True):
    """A leg: `name` inside `namespace`, its other end `host_name` enslaved to `bridge`.

    `isolated` ports of one bridge cannot speak to each other (bridge(8), `isolated on`).
    """

    host_name: str
    bridge: str
    mac: str
    addresses: tuple[str, ...]
    isolated: bool = False
    mtu: int = MTU


class Tap(Interface, frozen=True, kw_only=True):
    """A TAP device inside `namespace`: the cable to a virtual machine, whose emulator runs in there, too.

    It stays when the emulator ends, so that what it has (addresses, rules) does not come and go with the guest. Who is
    in `group` (its number) may take hold of it, and nobody else without CAP_NET_ADMIN.
    """

    mac: str
    group: int
    addresses: tuple[str, ...]


class Nic(Interface, frozen=True, kw_only=True):
    """A physical interface that is moved into `namespace` and renamed to `name` there; `match` is its name on the host.

    Of the IP versions in `leased`, somebody else (a DHCP client) gives it addresses and routes.
    """

    match: str
    addresses: tuple[str, ...] = ()
    leased: tuple[int, ...] = (4, 6)


LACP = 4
"""The mode of a bond by IEEE 802.1AX (linux/if_bonding.h: BOND_MODE_8023AD)."""


class Bond(Interface, frozen=True, kw_only=True):
    """A bond of the interfaces `ports` inside the same namespace; `leased` is as for a Nic."""

    ports: tuple[str, ...]
    mode: int = LACP
    addresses: tuple[str, ...] = ()
    leased: tuple[int, ...] = (4, 6)


class Vlan(Interface, frozen=True, kw_only=True):
    """The VLAN `tag` (IEEE 802.1Q) of the interface `parent` inside the same namespace; `leased` is as for a Nic."""

    parent: str
    tag: int
    addresses: tuple[str, ...] = ()
    leased: tuple[int, ...] = (4, 6)


class WireGuardPeer(msgspec.Struct, frozen=True, kw_only=True):
    """One peer of a WireGuard interface; `allowed` are its addresses in CIDR form."""

    public_key: str
    allowed: tuple[str, ...]


class WireGuard(Interface, frozen=True, kw_only=True):
    """A WireGuard interface inside `namespace`; its private key is read from `key_file`, never from here."""

    listen_port: int
    key_file: str
    addresses: tuple[str, ...]
    peers: tuple[WireGuardPeer, ...]


class Stray(Interface, frozen=True, kw_only=True):
    """A link that nobody declares: in a namespace of ours it goes, on the host it is taken off our bridge."""

    @property
    def key(self) -> str:
        """Namespace and name."""
        return f"{self.namespace or 'host'}/{self.name}"


class Route(Noun, frozen=True, kw_only=True):
    """A route inside `namespace`; `destination` is `default`, `default6` or a CIDR.

    A link-local gateway is met on `device`, which is empty for others. `metric` is 0 for the kernel's default;
    `protocol` is another than ours where somebody else made the route.
    """

    namespace: str
    destination: str
    gateway: str
    device: str = ""
    metric: int = 0
    protocol: int = ROUTE_PROTOCOL

    @property
    def key(self) -> str:
        """Namespace and destination, and the metric where it is not the default."""
        return f"{self.namespace}/{self.destination}" + (f" metric {self.metric}" if self.metric else "")


class FlowRule(Noun, frozen=True, kw_only=True):
    """One allowed flow of the one table: who may open a connection to whom, on what, and which component asked for
    it, why.

    `source` and `target` are instance names or ANYWHERE, a source also a LAN; `to` narrows an ANYWHERE target to a
    CIDR, `via` is the network leg on which a source or target from outside is met.
    """

    source: str
    target: str
    protocol: Protocol
    port: int
    component: str
    reason: str
    to: str = ""
    via: NetworkName = "uplink"

    @property
    def key(self) -> str:
        """Source, target and what is spoken."""
        return f"{self.source} to {self.to or self.target} {self.port}/{self.protocol}"


class Ruleset(Noun, frozen=True, kw_only=True):
    """The complete nftables ruleset of one namespace, as `nft -f` text; HOST is the host's own."""

    namespace: str
    text: str

    @property
    def key(self) -> str:
        """The namespace."""
        return self.namespace or "host"


class Directory(Noun, frozen=True, kw_only=True):
    """A directory; one that units may write is sticky (`0o1777`), so that nobody replaces what is not his."""

    path: str
    mode: int = 0o755

    @property
    def key(self) -> str:
        """The path."""
        return self.path


class File(Noun, frozen=True, kw_only=True):
    """A file below /run/alpha-ren with its whole content; `check` is the daemon's own checker, `{path}` the
    candidate.
    """

    path: str
    content: str
    mode: int = 0o644
    check: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The path."""
        return self.path


class Unit(Named, frozen=True, kw_only=True):
    """A systemd unit the supervisor owns: its name with suffix and its whole text.

    `reload_on` and `restart_on` are paths of Files whose change reloads or restarts the unit.
    """

    text: str
    component: str
    instance: str
    namespace: str = HOST
    reload_on: tuple[str, ...] = ()
    restart_on: tuple[str, ...] = ()


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a running unit was started with: SHA-256 digests of its text and of the files in `restart_on` and
    `reload_on`.
    """

    text: str
    restart: str
    reload: str


class UnitFact(Named, frozen=True, kw_only=True):
    """A unit of ours as it was found.

    `text` is what lies on disk, `state` systemd's ActiveState, `loaded` what it was last started with (None: unknown).
    An `orphan` runs in a network namespace that is no longer the one of that name. `since` is Unix time. Of one
    that is `unread`, systemd could not read the text.
    """

    text: str
    state: str
    loaded: Loaded | None = None
    orphan: bool = False
    unread: bool = False
    restarts: int = 0
    since: float = 0.0
    memory_mb: float = 0.0


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one machine should be; and, but for flows and units, what it was found to be."""

    bridges: tuple[Bridge, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    nics: tuple[Nic, ...] = ()
    bonds: tuple[Bond, ...] = ()
    vlans: tuple[Vlan, ...] = ()
    veths: tuple[Veth, ...] = ()
    taps: tuple[Tap, ...] = ()
    wireguards: tuple[WireGuard, ...] = ()
    strays: tuple[Stray, ...] = ()
    routes: tuple[Route, ...] = ()
    flows: tuple[FlowRule, ...] = ()
    rulesets: tuple[Ruleset, ...] = ()
    directories: tuple[Directory, ...] = ()
    files: tuple[File, ...] = ()
    units: tuple[Unit, ...] = ()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: `machine` in the nouns of the desired one, units as facts."""

    machine: Machine = Machine()
    units: tuple[UnitFact, ...] = ()


class Waits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The part of the last ten seconds, in percent, in which something had to wait for a resource; None: not counted.

    It is what the kernel's PSI calls `some` and `avg10`.
    """

    cpu: float | None = None
    memory: float | None = None
    io: float | None = None


class MachineUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the machine uses; `cpu_percent` is that of all processors together, `load` that of the last minute."""

    cpus: int
    load: float
    cpu_percent: float
    memory_mb: float
    memory_total_mb: float
    waits: Waits = Waits()

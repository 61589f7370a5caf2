"""The one seam between the supervisor and the components: what a component declares.

A component's `spec.py` has one pure function, `declare(config) -> ComponentSpec`. The supervisor calls it, gives every
instance its namespace, legs, addresses, keys and firewall, and then calls `render(site, instance)` for its files.
It knows no component by name.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from appliance.config import Config, Isolation, SideRole
from appliance.contracts.access import Access, Rights
from appliance.contracts.service import Leg
from appliance.errors import ApplianceError
from appliance.topology import ANYWHERE, LanName, NetworkName, Protocol

RUN = "/run/alpha-ren"
STATE = "/var/lib/alpha-ren"
PYTHON = "/usr/bin/python3"


LAN_LEGS: Mapping[SideRole, LanName] = {"cluster": "cluster-lan", "management": "management"}
"""The gateway's legs on the LANs beside the uplink, by the role of their cards."""


class BadDeclaration(ApplianceError):
    """Components declare things that cannot all be true, a bug in the firmware."""

    code = "bad-declaration"
    hint = "This is a fault of the firmware: roll back to the version before and report it."


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything below."""


class Port(Declared, frozen=True):
    """A port an instance listens on, found by its `name`; with `outside` it answers anybody on the uplink, and anybody
    on those of the `lans` whose cards are used.
    """

    name: str
    number: int
    protocol: Protocol = "tcp"
    outside: bool = False
    lans: tuple[LanName, ...] = ()


class Peer(Declared, frozen=True):
    """A component this one may call: every instance of it that offers the port of that name."""

    component: str
    port: str
    reason: str


class Egress(Declared, frozen=True):
    """A flow out of the box: to `to` (a CIDR or ANYWHERE) on this port."""

    port: int
    reason: str
    protocol: Protocol = "tcp"
    to: str = ANYWHERE


class Exposure(Declared, frozen=True):
    """A path prefix on the outside's 443 that the reverse proxy hands to the instance's HTTP port of that name.

    All instances with the same prefix are balanced; `check` is a path that answers 200 while the instance is well.
    What is `repeatable` knows a request that it has had by the proxy's own header, X-Alpha-Ren-Request: one that ended
    without an answer, because its server did, is then sent to another, whatever its method.
    """

    prefix: str
    port: str
    check: str
    repeatable: bool = False


class Forward(Declared, frozen=True):
    """A port on the uplink, and on those of the `lans` whose cards are used, that the gateway hands on unchanged
    (nftables DNAT) to this instance's port of that name.
    """

    port: str
    number: int
    lans: tuple[LanName, ...] = ()


class Credential(Declared, frozen=True):
    """A file that a unit gets as systemd credential `name` (systemd.exec(5), LoadCredential=)."""

    name: str
    path: str


class Opened(Declared, frozen=True):
    """A file that systemd opens for a unit and hands over as descriptor `name` (sd_listen_fds(3))."""

    name: str
    path: str
    read_only: bool = True


class UnitSpec(Declared, frozen=True):
    """A process of an instance. An empty `name` is its main unit.

    `user` empty means a dynamic user of its own, which is in `groups`, too; `notify` that it says READY=1 and feeds the
    watchdog itself; `capabilities` are what the process keeps (and all it can ever have). In command lines `%` and `$`
    mean what they mean to systemd (systemd.service(5)). A directory in `writable` is made for the unit's user and goes
    with the unit where it is below /run; the instance's own directory there is made sticky instead, and others are made
    for root. Of several processes one that `leads` is asked alone to stop, and ends the others itself.
    """

    exec: tuple[str, ...]
    name: str = ""
    reload: tuple[str, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    user: str = ""
    groups: tuple[str, ...] = ()
    kind: Literal["exec", "notify", "forking", "oneshot", "notify-reload"] = "notify"
    watchdog_s: int = 0
    capabilities: tuple[str, ...] = ()
    credentials: tuple[Credential, ...] = ()
    environment: tuple[str, ...] = ()
    state_directory: bool = False
    devices: tuple[str, ...] = ()
    opens: tuple[Opened, ...] = ()
    writable: tuple[str, ...] = ()
    private_users: bool = False
    start_s: int = 300
    stop_s: int = 10
    leads: bool = False
    sandbox: bool = True


class Resources(Declared, frozen=True):
    """What an instance may use at most, over all its units; `open_files` holds for each process.

    `work` says what it mostly does: `compute` gets the CPUs and the memory that the hardware profile has for that, so
    that neither kind starves the other.
    """

    work: Literal["network", "compute"] = "network"
    memory_mb: int = 256
    tasks: int = 64
    cpu_weight: int = 100
    open_files: int = 1024


class RenderedFile(Declared, frozen=True):
    """A file for /run/alpha-ren/INSTANCE/`name`; `check` is the daemon's own checker, `{path}` stands for the
    candidate.

    When it changes, the units in `reloads` are reloaded and those in `restarts` restarted (unit names as in UnitSpec).
    """

    name: str
    content: str
    mode: int = 0o644
    check: tuple[str, ...] = ()
    reloads: tuple[str, ...] = ()
    restarts: tuple[str, ...] = ()


class WireGuardPeerSpec(Declared, frozen=True):
    """A WireGuard peer and the addresses it may use, in CIDR form."""

    public_key: str
    allowed: tuple[str, ...]


class WireGuardSpec(Declared, frozen=True):
    """A WireGuard interface inside the instance; the supervisor makes its key on the box."""

    name: str
    listen_port: int
    addresses: tuple[str, ...]
    peers: tuple[WireGuardPeerSpec, ...] = ()


class Instance(Declared, frozen=True):
    """One instance of a component: a namespace with its legs, ports, peers, units.

    `slot` is its host number in every inner network, unique over all components. Exactly one instance has the uplink
    leg: it is the gateway of the others. `notes` are what a person should know about it under this configuration.
    Where other machines list its key (`known_outside`), the next one is made ahead and told to it.

    One whose `isolation` allows a virtual machine has one leg, one unit of our own and no files beside its service
    document: that is what goes into the guest. Its namespace is then between the guest and everybody else.
    """

    name: str
    slot: int
    legs: tuple[NetworkName, ...]
    units: tuple[UnitSpec, ...]
    ports: tuple[Port, ...] = ()
    peers: tuple[Peer, ...] = ()
    egress: tuple[Egress, ...] = ()
    exposures: tuple[Exposure, ...] = ()
    forwards: tuple[Forward, ...] = ()
    wireguard: WireGuardSpec | None = None
    rights: Rights = Rights()
    resources: Resources = Resources()
    settings: msgspec.Struct | None = None
    isolated: bool = False
    isolation: Isolation = "namespace"
    known_outside: bool = False
    notes: tuple[str, ...] = ()

    @property
    def is_gateway(self) -> bool:
        """Whether this is the instance that owns the uplink."""
        return "uplink" in self.legs

    def offers(self, name: str) -> bool:
        """Return whether it has a port of that name."""
        return any(port.name == name for port in self.ports)

    def port(self, name: str) -> Port:
        """Return the port of that name, or raise BadDeclaration."""
        for port in self.ports:
            if port.name == name:
                return port
        raise BadDeclaration(f"{self.name} offers no port named {name}.")


class Placed(Declared, frozen=True):
    """An instance with its place on this machine: the addresses of its inner legs."""

    component: str
    instance: Instance
    legs: dict[NetworkName, Leg]

    @property
    def leg(self) -> Leg:
        """The leg on which the others find it: on the cluster network where it has one, else in the DMZ."""
        return self.legs.get("cluster") or self.legs["dmz"]


class Site(Declared, frozen=True):
    """What a component may know of the machine when it renders its files."""

    config: Config
    placed: tuple[Placed, ...]
    access: tuple[Access, ...]
    resolvers: tuple[str, ...]
    uplink_v4: tuple[str, ...] = ()
    uplink_v6: tuple[str, ...] = ()

    def find(self, instance: str) -> Placed:
        """Return where the instance of that name is, or raise BadDeclaration."""
        for placed in self.placed:
            if placed.instance.name == instance:
                return placed
        raise BadDeclaration(f"No component declares an instance named {instance}.")

    def of(self, component: str) -> tuple[Placed, ...]:
        """Return all instances of a component."""
        return tuple(placed for placed in self.placed if placed.component == component)


Render = Callable[[Site, Placed], Iterable[RenderedFile]]


def no_files(_site: Site, _placed: Placed) -> Iterable[RenderedFile]:
    """The `render` of a component that needs no files of its own."""
    return ()


class ComponentSpec(Declared, frozen=True):
    """What a component declares: its name (an acronym of the landscape, lower case), its instances, its files."""

    name: str
    instances: tuple[Instance, ...]
    render: Render = no_files


Declare = Callable[[Config], ComponentSpec]


def asking_legs(config: Config) -> dict[NetworkName, tuple[int, ...]]:
    """Return the gateway's legs whose addresses a client asks for, with the IP versions of those."""
    legs: dict[NetworkName, tuple[int, ...]] = {"uplink": config.network.uplink.leased}
    legs |= {LAN_LEGS[role]: side.leased for role, side in config.network.sides.items()}
    return {leg: versions for leg, versions in legs.items() if versions}


def inner_network(config: Config, network: NetworkName) -> tuple[ipaddress.IPv4Network, ipaddress.IPv6Network]:
    """Return the IPv4 /20 and the IPv6 /64 of an inner network: the DMZ is the first of each, the cluster the
    second.
    """
    return subnet(config, {"dmz": 0, "cluster": 1}[network])


def subnet(config: Config, index: int) -> tuple[ipaddress.IPv4Network, ipaddress.IPv6Network]:
    """Return an IPv4 /20 and an IPv6 /64 of the box's own: 0 is the DMZ, 1 the cluster, 2 the VPN, 3 the cables between
    virtual machines and their namespaces.
    """
    four = list(ipaddress.IPv4Network(config.network.inner4).subnets(new_prefix=20))[index]
    base = ipaddress.IPv6Network(config.network.inner6)
    six = ipaddress.IPv6Network((int(base.network_address) + (index << 64), 64))
    return four, six

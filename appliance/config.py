"""The machine's configuration: one typed TOML document, strict and versioned.

Units: seconds are `_s`, memory is in MiB and ends in `_mb`. An empty document is a valid configuration: every field has
the value that a single box on a DHCP uplink wants.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from appliance.errors import NOT_DECODED, InvalidInput

Label = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
"""A DNS label (RFC 1035 letters-digits-hyphen, lower case), at most 32 characters."""

TcpPort = Annotated[int, Meta(ge=1, le=65535)]

CURRENT_VERSION = 1


class InvalidConfig(InvalidInput):
    """The configuration does not validate; the last good one stays in force."""

    code = "invalid-config"
    hint = "Correct the named field; unknown fields are errors. The configuration in force was not changed."


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Machine(_Section, frozen=True):
    """Who this machine is: `lan/cluster` is the first part of every queue address on it."""

    name: Label = "alpha-ren"
    lan: Label = "lan"
    cluster: Label = "main"


SideRole = Literal["cluster", "management"]
"""The roles of network cards beside the uplink."""


class Side(_Section, frozen=True):
    """How the card of a LAN gets its addresses: by `mode`, and IPv6 by `mode6`, where `auto` is router advertisements
    and DHCPv6.

    IPv6 is `static` with an `address6`, else `auto` beside DHCP and `off` beside a static IPv4, unless `mode6` says
    something else. Nothing but the LAN itself is reached through it.
    """

    mode: Literal["dhcp", "static"] = "dhcp"
    address: str = ""
    mode6: Literal["", "auto", "static", "off"] = ""
    address6: str = ""

    @property
    def six(self) -> Literal["auto", "static", "off"]:
        """How it gets its IPv6 addresses; one that is `off` may still have one as `address`."""
        return self.mode6 or ("static" if self.address6 else "auto" if self.mode == "dhcp" else "off")

    @property
    def leased(self) -> tuple[int, ...]:
        """The IP versions whose addresses a client asks for."""
        return ((4,) if self.mode == "dhcp" else ()) + ((6,) if self.six == "auto" else ())

    @property
    def addresses(self) -> tuple[str, ...]:
        """The static addresses, in CIDR form as the kernel writes them."""
        return tuple(str(ipaddress.ip_interface(text)) for text in (self.address, self.address6) if text)


class Uplink(Side, frozen=True):
    """What the uplink is, and how it gets its addresses: as the card of a LAN does, and a way out beside them.

    It is a network card, or with `bond` all that have the role together (IEEE 802.1AX); with a `vlan` other than 0 it
    is that VLAN of it (IEEE 802.1Q). A `static` one needs address and gateway.
    """

    vlan: Annotated[int, Meta(ge=0, le=4094)] = 0
    bond: Literal["", "lacp"] = ""
    gateway: str = ""
    gateway6: str = ""
    resolvers: tuple[str, ...] = ()

    @property
    def gateways(self) -> tuple[str, ...]:
        """The gateways of the static addresses, as the kernel writes them."""
        return tuple(str(ipaddress.ip_address(text)) for text in (self.gateway, self.gateway6) if text)


class Network(_Section, frozen=True, omit_defaults=True):
    """The uplink, the LANs on cards of their own, and the inner networks (`inner4` is an IPv4 /16, `inner6` an IPv6
    ULA /48). Without its section a LAN's card is not used: `cluster` is where ARSRV hosts are, `management` operators.
    """

    uplink: Uplink = Uplink()
    cluster: Side | None = None
    management: Side | None = None
    inner4: str = "10.156.0.0/16"
    inner6: str = "fd9c:156::/48"

    @property
    def sides(self) -> dict[SideRole, Side]:
        """The LANs whose cards are used."""
        sides: tuple[tuple[SideRole, Side | None], ...] = (("cluster", self.cluster), ("management", self.management))
        return {role: side for role, side in sides if side is not None}


Isolation = Literal["auto", "vm", "namespace"]
"""What a component runs in: a virtual machine or a network namespace; `auto` is the first where KVM works."""


class Arsrv(_Section, frozen=True):
    """The integration servers; `egress_ports` are the TCP ports that deliveries may use on any outside host."""

    count: Annotated[int, Meta(ge=1, le=200)] = 2
    isolation: Isolation = "auto"
    egress_ports: tuple[TcpPort, ...] = (80, 443)


class Arwadm(_Section, frozen=True):
    """The web administration consoles, each isolated from the others."""

    count: Annotated[int, Meta(ge=1, le=15)] = 1


class Mail(_Section, frozen=True):
    """Where notification mail goes: `smarthost` is `host` or `host:port`; empty means that mail waits on the box."""

    smarthost: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()


class VpnPeer(_Section, frozen=True):
    """A WireGuard peer: its public key (base64) and the slot of its address in the VPN network, 2 to 254."""

    name: Label
    public_key: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{43}=$")]
    slot: Annotated[int, Meta(ge=2, le=254)]


class Vpn(_Section, frozen=True):
    """Who may enter the cluster by WireGuard."""

    peers: tuple[VpnPeer, ...] = ()


AddressPattern = Annotated[str, Meta(pattern=r"^([a-z0-9*-]+/[a-z0-9*-]+/)?[A-Za-z0-9_.*-]+$", max_length=270)]
"""Queue addresses: `*` stands for any run of characters but `/`."""


class QueueLimit(_Section, frozen=True):
    """What each address that matches `pattern` may hold and take, the publisher hearing *busy* beyond it: messages that
    wait, bytes, and new messages per second (`rate`, a second's worth at once). Without a value: as without the limit.
    """

    pattern: AddressPattern
    max_depth: Annotated[int, Meta(ge=1)] | None = None
    max_bytes: Annotated[int, Meta(ge=1)] | None = None
    rate: Annotated[float, Meta(gt=0, le=1e6)] | None = None


Place = Annotated[
    str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?/[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", max_length=65)
]
"""A cluster as `lan/cluster`."""

CurveKey = Annotated[str, Meta(pattern=r"^[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}$")]
"""A CURVE public key in Z85 (ZeroMQ RFC 32)."""


QUEUE_PORT = 7156
"""Where the brokers of other clusters are found, unless a route says otherwise."""


class QueueRoute(_Section, frozen=True, omit_defaults=True):
    """Where messages for the cluster `to` go: its broker's entrance, `host` or `host:port`, and its public key.

    `next_key` is the one that the broker has announced, so that a rotation needs no change here at the same time.

    Several routes may have one entrance, whose cluster passes on what is not for itself. Rates are limits.
    """

    to: Place
    endpoint: Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?$")]
    server_key: CurveKey
    next_key: CurveKey | None = None
    messages_per_s: Annotated[float, Meta(gt=0)] | None = None
    bytes_per_s: Annotated[float, Meta(gt=0)] | None = None

    @property
    def entrance(self) -> tuple[str, int]:
        """Host, an IPv6 address in brackets, and port."""
        host, colon, port = self.endpoint.rpartition(":")
        return (host, int(port)) if colon and not port.endswith("]") else (self.endpoint, QUEUE_PORT)


class QueuePeer(_Section, frozen=True, omit_defaults=True):
    """A cluster that may bring messages here: the public key of its bridge, and the addresses it may publish to.

    `next_key` is the one that its bridge takes next: both are let in, so that a rotation needs no change here at the
    same time. `lan/cluster/*` among them lets it pass through to a cluster that there is a route to. With
    `transit` it also brings the messages of other clusters.
    """

    name: Place
    public_key: CurveKey
    publish: Annotated[tuple[AddressPattern, ...], Meta(min_length=1)]
    next_key: CurveKey | None = None
    transit: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The public keys that its bridge has, now or next."""
        return (self.public_key,) if self.next_key is None else (self.public_key, self.next_key)


class Queue(_Section, frozen=True):
    """The broker; of `limits` the first whose pattern matches an address holds for it."""

    limits: tuple[QueueLimit, ...] = ()
    routes: tuple[QueueRoute, ...] = ()
    peers: tuple[QueuePeer, ...] = ()


class Config(_Section, frozen=True):
    """The whole document."""

    version: int = CURRENT_VERSION
    machine: Machine = Machine()
    network: Network = Network()
    arsrv: Arsrv = Arsrv()
    arwadm: Arwadm = Arwadm()
    mail: Mail = Mail()
    vpn: Vpn = Vpn()
    queue: Queue = Queue()


def parse(text: str) -> Config:
    """Return the configuration in `text`; raise InvalidConfig with the field's path where it does not validate."""
    try:
        config = msgspec.toml.decode(text.encode(), type=Config)
    except NOT_DECODED as error:
        raise InvalidConfig(f"The configuration is not valid: {error}.") from error
    _check(config)
    return config


def load(path: Path) -> Config:
    """Return the configuration in the file at `path`, or raise InvalidConfig."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"The configuration at {path} cannot be read: {error}.") from error


def _check(config: Config) -> None:
    if config.version != CURRENT_VERSION:
        raise InvalidConfig(
            f"The configuration has version {config.version}, this firmware reads {CURRENT_VERSION} - at `$.version`.",
            hint="Use a firmware that knows this version, or write the document anew.",
        )
    _check_networks(config.network)
    _check_uplink(config.network.uplink)
    for role, side in config.network.sides.items():
        _check_side(side, f"$.network.{role}")
    _check_apart(config.network)
    _check_mail(config.mail)
    _check_queue(config.queue, f"{config.machine.lan}/{config.machine.cluster}")
    slots = [peer.slot for peer in config.vpn.peers]
    names = [peer.name for peer in config.vpn.peers]
    if len(set(slots)) != len(slots) or len(set(names)) != len(names):
        raise InvalidConfig("Two VPN peers share a name or a slot - at `$.vpn.peers`.")


def _check_networks(network: Network) -> None:
    try:
        inner4 = ipaddress.IPv4Network(network.inner4)
        inner6 = ipaddress.IPv6Network(network.inner6)
    except ValueError as error:
        raise InvalidConfig(f"An inner network is not valid: {error} - at `$.network`.") from error
    if inner4.prefixlen != 16 or not inner4.is_private:
        raise InvalidConfig("The inner IPv4 network must be a private /16 - at `$.network.inner4`.")
    if inner6.prefixlen != 48 or not inner6.subnet_of(ipaddress.IPv6Network("fc00::/7")):
        raise InvalidConfig("The inner IPv6 network must be a ULA /48 - at `$.network.inner6`.")


def _check_uplink(uplink: Uplink) -> None:
    try:
        for resolver in uplink.resolvers:
            ipaddress.ip_address(resolver)
        if uplink.mode == "static" and (uplink.address or not uplink.address6):
            _check_way_out(ipaddress.ip_interface(uplink.address), uplink.gateway)
        if uplink.six == "static":
            _check_way_out(ipaddress.IPv6Interface(uplink.address6), uplink.gateway6)
    except ValueError as error:
        raise InvalidConfig(f"The uplink is not valid: {error} - at `$.network.uplink`.") from error
    if uplink.mode == "dhcp" and (uplink.address or uplink.gateway):
        raise InvalidConfig("A DHCP uplink takes no address and no gateway - at `$.network.uplink`.")
    if uplink.six != "static" and (uplink.address6 or uplink.gateway6):
        raise InvalidConfig(f"`mode6` {uplink.six} takes no address6 and no gateway6 - at `$.network.uplink`.")
    if uplink.six != "off" and ":" in uplink.address:
        raise InvalidConfig("`address` is an IPv6 address, and `mode6` asks for more - at `$.network.uplink`.")


def _check_side(side: Side, where: str) -> None:
    try:
        if side.mode == "static" and (side.address or not side.address6):
            ipaddress.IPv4Interface(side.address)
        if side.six == "static":
            ipaddress.IPv6Interface(side.address6)
    except ValueError as error:
        raise InvalidConfig(f"The card's address is not valid: {error} - at `{where}`.") from error
    if side.mode == "dhcp" and side.address:
        raise InvalidConfig(f"With DHCP a card takes no address - at `{where}`.")
    if side.six != "static" and side.address6:
        raise InvalidConfig(f"`mode6` {side.six} takes no address6 - at `{where}`.")


def _check_apart(network: Network) -> None:
    """Raise InvalidConfig where two cards, or a LAN and the inside, have one network: answers would go astray."""
    known = [("uplink", address) for address in network.uplink.addresses] if network.sides else []
    known += [("inside", network.inner4), ("inside", network.inner6)] if network.sides else []
    for role, side in network.sides.items():
        for address in side.addresses:
            here = ipaddress.ip_interface(address).network
            for other, text in known:
                there = ipaddress.ip_interface(text).network
                if here.version == there.version and here.overlaps(there):
                    raise InvalidConfig(f"The LAN {here} is part of the {other}'s {there} - at `$.network.{role}`.")
        known += [(role, address) for address in side.addresses]


def _check_way_out(interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface, gateway: str) -> None:
    """Raise ValueError unless the gateway is a neighbour; that may be one with a link-local address in IPv6."""
    neighbour = ipaddress.ip_address(gateway)
    is_local = interface.version == neighbour.version == 6 and neighbour.is_link_local
    if neighbour not in interface.network and not is_local:
        raise ValueError(f"gateway {gateway} is not in {interface.network}")
    if neighbour == interface.ip:
        raise ValueError(f"{gateway} is the machine itself, not its gateway")


def _check_queue(queue: Queue, here: str) -> None:
    places = {"routes": [route.to for route in queue.routes], "peers": [peer.name for peer in queue.peers]}
    for field, names in places.items():
        if here in names:
            raise InvalidConfig(f"The cluster {here} is this one - at `$.queue.{field}`.")
        if len(set(names)) != len(names):
            raise InvalidConfig(f"A cluster is listed twice - at `$.queue.{field}`.")
    for route in queue.routes:
        host, port = route.entrance
        try:
            if host.startswith("["):
                ipaddress.IPv6Address(host.strip("[]"))
            if not 1 <= port <= 65535:
                raise ValueError(f"{port} is not a port")
        except ValueError as error:
            raise InvalidConfig(f"The entrance of {route.to} is not valid: {error} - at `$.queue.routes`.") from error
    keys = [key for peer in queue.peers for key in peer.keys]
    if len(set(keys)) != len(keys):
        raise InvalidConfig("A public key is listed twice - at `$.queue.peers`.")


def _check_mail(mail: Mail) -> None:
    if mail.smarthost and not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?", mail.smarthost):
        raise InvalidConfig("The smarthost must be `host` or `host:port` - at `$.mail.smarthost`.")
    for address in (*mail.recipients, *((mail.sender,) if mail.sender else ())):
        if not re.fullmatch(r"[^@\s<>,;]+@[^@\s<>,;]+", address):
            raise InvalidConfig(f"`{address}` is not a mail address - at `$.mail`.")

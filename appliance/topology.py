"""The nouns of one machine: what should exist on it, with nothing said about how it comes to be.

`supervisor` computes these from configuration and hardware facts; `host` compares them with the kernel and makes them true.
Interface addresses are strings in CIDR form (`10.156.16.2/20`), ports are numbers, protocols are `tcp` or `udp`.
"""

from typing import Literal

import msgspec

Protocol = Literal["tcp", "udp"]
NetworkName = Literal["uplink", "dmz", "cluster"]
ANYWHERE = "any"
"""A flow to or from the outside world, whatever its address."""


class Noun(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything below: frozen, compared by value."""


class Bridge(Noun, frozen=True):
    """A layer-2 segment in the host namespace; it carries no address, so the host cannot be spoken to."""

    name: str


class Namespace(Noun, frozen=True):
    """A network namespace, pinned at /run/netns/NAME; `forwarding` makes it a router."""

    name: str
    forwarding: bool = False


class Veth(Noun, frozen=True):
    """A leg: `name` inside `namespace`, its other end `host_name` enslaved to `bridge`.

    `isolated` ports of one bridge cannot speak to each other (bridge(8), `isolated on`).
    """

    namespace: str
    name: str
    host_name: str
    bridge: str
    mac: str
    addresses: tuple[str, ...]
    isolated: bool = False


class Nic(Noun, frozen=True):
    """A physical interface that is moved into `namespace` and renamed to `name` there; `match` is its name on the host."""

    namespace: str
    name: str
    match: str
    addresses: tuple[str, ...] = ()


class WireGuardPeer(Noun, frozen=True):
    """One peer of a WireGuard interface; `allowed` are its addresses in CIDR form."""

    public_key: str
    allowed: tuple[str, ...]


class WireGuard(Noun, frozen=True):
    """A WireGuard interface inside `namespace`; its private key is read from `key_file`, never from here."""

    namespace: str
    name: str
    listen_port: int
    key_file: str
    addresses: tuple[str, ...]
    peers: tuple[WireGuardPeer, ...]


class Route(Noun, frozen=True):
    """A route inside `namespace`; `destination` is `default`, `default6` or a CIDR."""

    namespace: str
    destination: str
    gateway: str


class FlowRule(Noun, frozen=True):
    """One allowed flow of the one table: who may open a connection to whom, on what, and which component asked for it, why.

    `source` and `target` are instance names or ANYWHERE; `to` narrows an ANYWHERE target to a CIDR, `via` is the network
    leg on which an ANYWHERE source or target is met.
    """

    source: str
    target: str
    protocol: Protocol
    port: int
    component: str
    reason: str
    to: str = ""
    via: NetworkName = "uplink"


class Ruleset(Noun, frozen=True):
    """The complete nftables ruleset of one namespace, as `nft -f` text."""

    namespace: str
    text: str


class File(Noun, frozen=True):
    """A file below /run/alpha-ren with its whole content; `check` is the daemon's own checker, `{path}` the candidate.

    """

    path: str
    content: str
    mode: int = 0o644
    check: tuple[str, ...] = ()


class Unit(Noun, frozen=True):
    """A systemd unit the supervisor owns: its name with suffix and its whole text.

    `reload_on` and `restart_on` are paths of Files whose change reloads or restarts the unit.
    """

    name: str
    text: str
    component: str
    instance: str
    namespace: str
    reload_on: tuple[str, ...] = ()
    restart_on: tuple[str, ...] = ()


class Machine(Noun, frozen=True):
    """Everything one machine should be."""

    bridges: tuple[Bridge, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    nics: tuple[Nic, ...] = ()
    veths: tuple[Veth, ...] = ()
    wireguards: tuple[WireGuard, ...] = ()
    routes: tuple[Route, ...] = ()
    flows: tuple[FlowRule, ...] = ()
    rulesets: tuple[Ruleset, ...] = ()
    files: tuple[File, ...] = ()
    units: tuple[Unit, ...] = ()

"""What the DNS declares: Unbound, and the process that keeps the members' records."""

import ipaddress
from collections.abc import Iterable
from importlib.resources import files
from pathlib import PurePosixPath
from string import Template

import msgspec

from appliance.component import (
    PYTHON,
    RUN,
    ComponentSpec,
    Egress,
    Instance,
    Peer,
    Placed,
    Port,
    RenderedFile,
    Resources,
    Site,
    UnitSpec,
)
from appliance.config import Config
from appliance.contracts.access import Rights
from appliance.dns.zones import SUFFIX, Zones, reverse_records, static_zone, zones_of

NAME = "dns"
SLOT = 5
HERE = PurePosixPath(RUN, NAME)
CONTROL = HERE / "control"
STATE_DIRECTORY = "/var/lib/alpha-ren-dns"
DNS = Port(name="dns", number=53, protocol="udp")
DNS_TCP = Port(name="dns-tcp", number=53)

UNBOUND = UnitSpec(
    name="unbound",
    exec=("/usr/sbin/unbound", "-d", "-p", "-c", f"{HERE}/unbound.conf"),
    reload=("/bin/sh", "-c", "kill -HUP $MAINPID"),
    kind="notify",
    user="unbound",
    capabilities=("CAP_NET_BIND_SERVICE",),
    writable=(str(CONTROL),),
)

CHECK = ("/bin/sh", "-c", "sed 's|zonefile: .*|zonefile: /dev/null|' \"$0\" | unbound-checkconf /dev/stdin", "{path}")
"""Zones not written yet are no fault of the configuration: Unbound only warns about them, but its checker fails."""

# Its user is Unbound's: the control socket lets nobody else in, and the zones it keeps are for Unbound alone.
FOLLOWER = UnitSpec(
    exec=(PYTHON, "-m", "appliance.dns.service"), user=UNBOUND.user, state_directory=True, watchdog_s=30
)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The zones this process keeps, the folder for their files, and Unbound's control socket."""

    zones: Zones
    folder: str
    control: str


def declare(config: Config) -> ComponentSpec:
    """Return the DNS of this machine."""
    known = config.network.uplink.resolvers
    reason = "asks the uplink's resolvers"
    everywhere = tuple(Egress(port=53, protocol=protocol, reason=reason) for protocol in ("udp", "tcp"))
    dns = Instance(
        name=NAME,
        slot=SLOT,
        legs=("cluster",),
        ports=(DNS, DNS_TCP),
        peers=(Peer(component="queue", port="queue", reason="follows the members and their order"),),
        egress=everywhere if not known else tuple(_narrow(egress, to) for egress in everywhere for to in known),
        rights=Rights(subscribe=("members", "order")),
        units=(FOLLOWER, UNBOUND),
        resources=Resources(memory_mb=192, cpu_weight=200, open_files=8192),
        settings=Settings(zones=zones_of(config.machine), folder=STATE_DIRECTORY, control=str(CONTROL / "unbound.ctl")),
    )
    return ComponentSpec(name=NAME, instances=(dns,), render=render)


def render(site: Site, placed: Placed) -> Iterable[RenderedFile]:
    """Yield Unbound's configuration and the zone with every instance on this machine."""
    zones = zones_of(site.config.machine)
    yield RenderedFile(name="static.zone", content=static_zone(zones, site.placed), reloads=(UNBOUND.name,))
    yield RenderedFile(
        name="unbound.conf",
        content=_unbound(site, placed, zones),
        check=CHECK,
        reloads=(UNBOUND.name,),
    )


def _narrow(egress: Egress, to: str) -> Egress:
    address = ipaddress.ip_address(to)
    return msgspec.structs.replace(egress, to=f"{address}/{address.max_prefixlen}")


def _unbound(site: Site, placed: Placed, zones: Zones) -> str:
    network = site.config.network
    listen = ("127.0.0.1", "::1", placed.leg.v4, placed.leg.v6)
    clients = ("127.0.0.0/8", "::1/128", network.inner4, network.inner6)
    return Template((files(__package__) / "unbound.conf.tmpl").read_text(encoding="utf-8")).substitute(
        run=HERE,
        control=CONTROL / "unbound.ctl",
        zone=zones.own,
        suffix=SUFFIX,
        interfaces="\n".join(f"    interface: {address}" for address in listen),
        clients="\n".join(f"    access-control: {network} allow" for network in clients),
        reverse="\n".join(_reverse(site, zones)),
        followed="\n".join(_followed(origin) for origin in (zones.members, zones.services)),
        forward="\n".join(_forward(site.resolvers)),
    )


def _reverse(site: Site, zones: Zones) -> Iterable[str]:
    four = ipaddress.IPv4Network(site.config.network.inner4)
    six = ipaddress.IPv6Network(site.config.network.inner6)
    # A /16 is two labels of in-addr.arpa, a /48 twelve of ip6.arpa.
    for origin in (
        four.network_address.reverse_pointer.split(".", 2)[2], six.network_address.reverse_pointer.split(".", 20)[20],
    ):
        yield f'    local-zone: "{origin}." static'
    for address, name in reverse_records(zones, site.placed):
        yield f'    local-data-ptr: "{address} {name}"'


def _followed(origin: str) -> str:
    return f'\nauth-zone:\n    name: "{origin}."\n    zonefile: "{STATE_DIRECTORY}/{origin}.zone"\n    for-upstream: no'


def _forward(resolvers: tuple[str, ...]) -> Iterable[str]:
    """Without a resolver the outside's names are refused at once, not asked for at root servers that nobody reaches."""
    if not resolvers:
        return ('\nserver:\n    local-zone: "." always_refuse',)
    return ('\nforward-zone:\n    name: "."', *(f"    forward-addr: {resolver}" for resolver in resolvers))

"""The internal zones as text (RFC 1035, section 5): what is where on this machine, and who is in the cluster."""

import ipaddress
import logging
import re
from collections.abc import Iterable

import msgspec

from appliance.component import Placed
from appliance.config import Machine
from appliance.contracts.member import Member, Members
from appliance.contracts.order import Order

SUFFIX = "alpha-ren.internal"
"""`internal.` is the domain that ICANN reserves for private use; nobody in the outside answers for it."""

log = logging.getLogger(__name__)

TTL_S = 5
SERVICE = "_hooks"
FIRST_PRIORITY = 10


class Zones(msgspec.Struct, frozen=True):
    """The origins of a cluster's zones, without the last dot: its own, its members', their services' (RFC 2782)."""

    own: str
    members: str
    services: str


def zones_of(machine: Machine) -> Zones:
    """Return the origins of the zones of the cluster that `machine` belongs to."""
    own = f"{machine.cluster}.{machine.lan}.{SUFFIX}"
    return Zones(own=own, members=f"members.{own}", services=f"_tcp.{own}")


def static_zone(zones: Zones, placed: Iterable[Placed]) -> str:
    """Return the cluster's own zone: every instance on this machine by its name."""
    lines = [line for place in placed for line in _addresses(place.instance.name, place.leg.v4, place.leg.v6)]
    return _zone(zones.own, zones.own, lines)


def reverse_records(zones: Zones, placed: Iterable[Placed]) -> tuple[tuple[str, str], ...]:
    """Return (address, name) for every leg of every instance on this machine."""
    return tuple(
        (address, f"{place.instance.name}.{zones.own}.")
        for place in placed
        for leg in place.legs.values()
        for address in (leg.v4, leg.v6)
    )


def members_zone(zones: Zones, members: Members) -> str:
    """Return the zone with every member's addresses."""
    lines = [line for member in _sorted(members) for line in _addresses(member.name, member.v4, member.v6)]
    return _zone(zones.members, zones.own, lines)


def services_zone(zones: Zones, members: Members, order: Order | None) -> str:
    """Return the zone in which `_hooks` lists who takes webhooks, the best server with the lowest priority.

    Members that are down are left out, unless all are: then somebody who asks should try them all the same.
    """
    lines = [
        f"{SERVICE} SRV {FIRST_PRIORITY * place} 0 {member.port} {member.name}.{zones.members}."
        for place, member in enumerate(_in_order(members, order), start=1)
    ]
    return _zone(zones.services, zones.own, lines)


def _in_order(members: Members, order: Order | None) -> list[Member]:
    """Return the members to use, best first; those that nobody has measured yet come after those known to be up."""
    ranks = order.ranks if order else ()
    place = {rank.name: number for number, rank in enumerate(ranks)}
    down = {rank.name for rank in ranks if rank.presence == "down"}
    known = sorted(_sorted(members), key=lambda member: place.get(member.name, len(place)))
    return [member for member in known if member.name not in down] or known


def _sorted(members: Members) -> list[Member]:
    """Return the members that fit into a zone file: what came over the wire never gets to write a line of its own."""
    usable = []
    for member in sorted(members.members, key=lambda member: member.name):
        try:
            ipaddress.IPv4Address(member.v4), ipaddress.IPv6Address(member.v6)
            if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", member.name):
                raise ValueError("its name is not a DNS label")
        except ValueError as error:
            log.warning("the member %r gets no records: %s", member.name, error)
            continue
        usable.append(member)
    return usable


def _addresses(name: str, v4: str, v6: str) -> list[str]:
    return [f"{name} A {ipaddress.IPv4Address(v4)}", f"{name} AAAA {ipaddress.IPv6Address(v6)}"]


def _zone(origin: str, own: str, lines: list[str]) -> str:
    head = [
        f"$ORIGIN {origin}.",
        f"$TTL {TTL_S}",
        f"@ SOA dns.{own}. hostmaster.{own}. 1 3600 600 86400 {TTL_S}",
        f"@ NS dns.{own}.",
    ]
    return "\n".join((*head, *lines)) + "\n"

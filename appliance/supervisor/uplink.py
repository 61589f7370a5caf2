"""The uplink and the LANs beside it: what they are made of, and what the uplink was told by those outside."""

import ipaddress
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import msgspec

from appliance.component import LAN_LEGS
from appliance.config import Network, Uplink
from appliance.contracts.lease import LEASE_FILE, Lease, read_lease
from appliance.errors import InvalidInput
from appliance.hwprofile import Role
from appliance.topology import Bond, Nic, Vlan

UPLINK = "uplink"
"""The interface's name inside the gateway, whatever it is."""
BELOW = "uplink-bond"
"""That of a bond that the uplink is a VLAN of."""

log = logging.getLogger(__name__)


class Given(TypedDict):
    """What the interface with the addresses has."""

    addresses: tuple[str, ...]
    leased: tuple[int, ...]


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """The interfaces that make the uplink, all in the gateway's namespace."""

    nics: tuple[Nic, ...] = ()
    bonds: tuple[Bond, ...] = ()
    vlans: tuple[Vlan, ...] = ()


def links(uplink: Uplink, namespace: str, cards: Sequence[str]) -> Links:
    """Return what the uplink is made of, `cards` being names on the host; nothing without one.

    The uplink itself is named UPLINK and has the addresses. A card that only carries it keeps its name.
    """
    if not cards:
        return Links()
    given = Given(addresses=uplink.addresses, leased=uplink.leased)
    if not uplink.bond and not uplink.vlan:
        return Links(nics=(Nic(namespace=namespace, name=UPLINK, match=cards[0], **given),))
    nics = tuple(Nic(namespace=namespace, name=card, match=card, leased=()) for card in cards)
    if uplink.bond and not uplink.vlan:
        return Links(nics=nics, bonds=(Bond(namespace=namespace, name=UPLINK, ports=tuple(cards), **given),))
    below = (Bond(namespace=namespace, name=BELOW, ports=tuple(cards), leased=()),) if uplink.bond else ()
    parent = BELOW if below else cards[0]
    vlan = Vlan(namespace=namespace, name=UPLINK, parent=parent, tag=uplink.vlan, **given)
    return Links(nics=nics, bonds=below, vlans=(vlan,))


def beside(network: Network, namespace: str, cards: Mapping[Role, str]) -> tuple[Nic, ...]:
    """Return the cards of the LANs that are used, as far as they are there; `cards` are names on the host by role."""
    return tuple(
        Nic(namespace=namespace, name=LAN_LEGS[role], match=cards[role], addresses=side.addresses, leased=side.leased)
        for role, side in network.sides.items()
        if role in cards
    )


def lease(directory: Path) -> Lease:
    """Return what the uplink's clients were told, noted in the gateway's directory; an empty one where it cannot
    be read.
    """
    try:
        return read_lease(directory / LEASE_FILE)
    except InvalidInput as error:
        log.warning("%s", error)
        return Lease()


def by_family(addresses: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the IPv4 and the IPv6 addresses, without prefix length."""
    parsed = [ipaddress.ip_interface(address).ip for address in addresses]
    four = tuple(str(address) for address in parsed if address.version == 4)
    six = tuple(str(address) for address in parsed if address.version == 6)
    return four, six

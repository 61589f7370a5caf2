"""The uplink: which card it is, and what it was told by those outside."""

import ipaddress
import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from appliance.contracts.lease import LEASE_FILE, Lease, read_lease
from appliance.errors import InvalidInput
from appliance.host.hardware import Card
from appliance.hwprofile import HardwareProfile

log = logging.getLogger(__name__)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The card that is the uplink (empty: none), and what a person should know about it."""

    name: str
    notes: tuple[str, ...] = ()


def choose(
    cards: Iterable[Card], moved: Iterable[tuple[str, str]], gateway: str, profile: HardwareProfile | None
) -> Choice:
    """Return the card that is the uplink: the one that already is, else the one that the hardware profile means.

    `moved` are (namespace, name on the host) of cards that were moved; `gateway` is the namespace of the uplink. Where
    nothing tells the drivers (in a container), or there is no profile, the cards count in the order of their names.
    """
    there = [name for namespace, name in moved if namespace == gateway]
    spare = sorted(cards, key=lambda card: (card.path, card.name))
    if there:
        return Choice(name=there[0], notes=_unused(spare))
    driver, place = _wanted(profile)
    fitting = [card for card in spare if not driver or card.driver in (driver, "")]
    if len(fitting) <= place:
        missing = f"No network card fits the uplink ({driver or 'any driver'}): the machine has no way out."
        return Choice(name="", notes=(missing, *_unused(spare)))
    chosen = fitting[place]
    return Choice(name=chosen.name, notes=_unused(card for card in spare if card is not chosen))


def _wanted(profile: HardwareProfile | None) -> tuple[str, int]:
    """Return driver and place of the card with the role `uplink`."""
    if profile is None:
        return "", 0
    [nic] = [nic for nic in profile.nics if nic.role == "uplink"]
    return nic.driver, nic.place


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


def _unused(cards: Iterable[Card]) -> tuple[str, ...]:
    return tuple(
        f"The network card {card.name} ({card.driver or card.mac}) has no role here and is left alone."
        for card in cards
    )

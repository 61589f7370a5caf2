"""The uplink: which card it is, and what it was told by those outside."""

import ipaddress
import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from appliance.contracts.lease import LEASE_FILE, Lease, read_lease
from appliance.errors import InvalidInput
from appliance.host.hardware import Card

log = logging.getLogger(__name__)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The card that is the uplink (empty: none), and what a person should know about it."""

    name: str
    notes: tuple[str, ...] = ()


def choose(cards: Iterable[Card], moved: Iterable[tuple[str, str]], gateway: str) -> Choice:
    """Return the card that is the uplink: the one that already is, else the first of those that are there.

    `moved` are (namespace, name on the host) of cards that were moved; `gateway` is the namespace of the uplink.
    """
    there = [name for namespace, name in moved if namespace == gateway]
    spare = sorted(card.name for card in cards)
    if there:
        return Choice(name=there[0], notes=_unused(spare))
    if spare:
        return Choice(name=spare[0], notes=_unused(spare[1:]))
    return Choice(name="", notes=("No network card fits the uplink: the machine has no way out.",))


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


def _unused(names: list[str]) -> tuple[str, ...]:
    return tuple(f"The network card {name} has no role in the hardware profile and is left alone." for name in names)

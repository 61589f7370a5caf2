"""Which network card has which role. Pure.

What the hardware profile asks for is met as far as it goes, and what does not fit is said. A card that was moved for a
role keeps it, as long as the profile lets it: nothing that is plugged in or pulled out later moves a role about.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from appliance.component import LAN_LEGS
from appliance.config import SideRole
from appliance.contracts.machine import NicStatus
from appliance.errors import Problem
from appliance.host.hardware import Card
from appliance.hwprofile import HardwareProfile, Nic, Role

ANY_CARD = (Nic(role="uplink", place=0),)
"""Without a profile the first card is the uplink."""

ROLES: Mapping[Role, str] = {"uplink": "uplink", "cluster": "cluster LAN", "management": "management LAN"}
HELD_FOR: Mapping[str, Role] = {leg: role for role, leg in LAN_LEGS.items()}
"""The role of a card that was moved, by its name where it is now; under any other it carries the uplink."""


class Roles(msgspec.Struct, frozen=True, kw_only=True):
    """The cards with a role, by bus address within each: `uplinks` is who carries the uplink, its first card first.

    `findings` are what a person should know: a card that is missing, that has no role, or one of several that fit.
    """

    uplinks: tuple[Card, ...]
    others: tuple[tuple[Role, Card], ...] = ()
    findings: tuple[Problem, ...] = ()


def match(
    profile: HardwareProfile | None, cards: Iterable[Card], gateway: str, *, bonded: bool = False
) -> Roles:
    """Return which card has which role; `gateway` is the namespace of the uplink.

    One card is the uplink; where it is `bonded`, all that fit the role are it together.

    A card of which the system tells neither driver nor path (in a container) fits any.
    """
    nics = ANY_CARD if profile is None else profile.nics
    cards = sorted((card for card in cards if card.held_in in ("", gateway)), key=lambda card: (card.path, card.name))
    fitting = _claims(nics, cards)
    chosen = _chosen(nics, fitting, [card for card in cards if card.held_in])
    findings: list[Problem] = []
    doubtful: list[Card] = []
    for number, nic in enumerate(nics):
        is_bond = bonded and nic.role == "uplink"
        if number in chosen and nic.place is None and len(fitting[number]) > 1 and not is_bond:
            findings.append(_ambiguous(nic, chosen[number], fitting[number]))
            doubtful += fitting[number]
    others = tuple((nic.role, chosen[n]) for n, nic in enumerate(nics) if nic.role != "uplink" and n in chosen)
    uplinks = [chosen[number] for number, nic in enumerate(nics) if nic.role == "uplink" and number in chosen]
    if bonded:
        open_to_more = [n for n, nic in enumerate(nics) if nic.role == "uplink" and nic.place is None]
        ports = [card for number in open_to_more for card in fitting[number]]
        taken = [card for _, card in others]
        uplinks += [card for card in ports if card not in (*uplinks, *taken)]
        uplinks.sort(key=cards.index)
        findings += [_lonely(card) for card in uplinks if len(uplinks) == 1]
    else:
        uplinks.sort(key=lambda card: not card.held_in)
        findings += [_unused(card) for card in uplinks[1:]]
    met = {n for n in chosen if nics[n].role != "uplink"} | _met_by_bond(nics, uplinks) if bonded else chosen.keys()
    missing = [_missing(nic) for number, nic in enumerate(nics) if number not in met]
    spoken_of = (*uplinks, *doubtful, *(card for _, card in others))
    findings += [_unknown(card) for card in cards if card not in spoken_of]
    return Roles(uplinks=tuple(uplinks if bonded else uplinks[:1]), others=others, findings=(*missing, *findings))


def unnamed(profile: HardwareProfile | None, configured: Iterable[SideRole]) -> tuple[Problem, ...]:
    """Return what a person should know of LANs that are configured where the profile names no card for them."""
    named = {nic.role for nic in (ANY_CARD if profile is None else profile.nics)}
    return tuple(_unnamed(role) for role in configured if role not in named)


def told(roles: Roles, addresses: Mapping[Role, tuple[str, ...]]) -> tuple[NicStatus, ...]:
    """Return the cards with a role, as they are told everywhere; `addresses` are those of LANs by role."""
    with_role: list[tuple[Role, Card]] = [("uplink", card) for card in roles.uplinks]
    return tuple(
        NicStatus(
            name=card.name,
            role=role,
            mac=card.mac,
            driver=card.driver,
            bus=_bus(card),
            addresses=addresses.get(role, ()),
        )
        for role, card in (*with_role, *roles.others)
    )


def place_of(card: Card) -> str:
    """Return what tells a card from others, for a person: driver and bus address, else its MAC address."""
    return " ".join(part for part in (card.driver, _bus(card)) if part) or card.mac


def _bus(card: Card) -> str:
    """Return the address of the nearest bus that has any: a virtio device has none of its own."""
    return next((part for part in reversed(card.path.split("/")) if ":" in part), "")


def _claims(nics: Sequence[Nic], cards: Sequence[Card]) -> list[list[Card]]:
    """Return the cards that each entry of the profile could mean, in order.

    Who names a card by what only it has, its path or its MAC address, has it before those who name a driver or a place.
    """
    claims: list[list[Card]] = [[] for _ in nics]
    left = list(cards)
    for rank in sorted({_rank(nic) for nic in nics}):
        claimed: list[Card] = []
        peers = [number for number, nic in enumerate(nics) if _rank(nic) == rank]
        for number in sorted(peers, key=lambda number: nics[number].place is None):
            nic = nics[number]
            fit = [card for card in left if _fits(nic, card)]
            if nic.place is not None:
                claims[number] = fit[nic.place : nic.place + 1]
            else:
                claims[number] = [card for card in fit if card not in claimed]
            claimed += claims[number]
        left = [card for card in left if card not in claimed]
    return claims


def _rank(nic: Nic) -> int:
    return next((rank for rank, mark in enumerate(nic.marks) if mark is not None), len(nic.marks))


def _fits(nic: Nic, card: Card) -> bool:
    return (
        (nic.path is None or not card.path or nic.path in card.path.split("/"))
        and (nic.mac is None or f"{card.mac}:".startswith(f"{nic.mac}:"))
        and (nic.driver is None or card.driver in (nic.driver, ""))
    )


def _chosen(nics: Sequence[Nic], claims: Sequence[list[Card]], held: Sequence[Card]) -> dict[int, Card]:
    """Return the card of each entry that has one: what is `held` for its role before what would have it now."""
    chosen: dict[int, Card] = {}
    for meant in (claims, [[card for card in held if _fits(nic, card)] for nic in nics]):
        for number, nic in enumerate(nics):
            mine = [card for card in meant[number] if card in held and HELD_FOR.get(card.held_as, "uplink") == nic.role]
            stays = [card for card in mine if card not in chosen.values()]
            if number not in chosen and stays:
                chosen[number] = stays[0]
    for number, claim in enumerate(claims):
        free = [card for card in claim if card not in chosen.values()]
        if number not in chosen and free:
            chosen[number] = free[0]
    return chosen


def _met_by_bond(nics: Sequence[Nic], ports: Sequence[Card]) -> set[int]:
    """Return the entries for the uplink that have a card in the bond, whichever of them found it first."""
    met: set[int] = set()
    left = list(ports)
    for number in sorted((n for n, nic in enumerate(nics) if nic.role == "uplink"), key=lambda n: _rank(nics[n])):
        card = next((card for card in left if _fits(nics[number], card)), None)
        if card is not None:
            met.add(number)
            left.remove(card)
    return met


def _wanted(nic: Nic) -> str:
    named = (("at", nic.path), ("MAC", nic.mac), ("driver", nic.driver), ("place", nic.place))
    return ", ".join(f"{word} {value}" for word, value in named if value is not None)


def _missing(nic: Nic) -> Problem:
    lost = ": the machine has no way out" if nic.role == "uplink" else ""
    message = f"The network card for the {ROLES[nic.role]} ({_wanted(nic)}) is not there{lost}."
    return Problem(code="nic-missing", message=message, hint="It is used as soon as it is plugged in.")


def _unnamed(role: SideRole) -> Problem:
    message = f"The {ROLES[role]} is configured, but the hardware profile names no network card for it."
    hint = f"Take `[network.{role}]` out of the configuration, or use a firmware whose profile names one."
    return Problem(code="nic-unnamed", message=message, hint=hint)


def _ambiguous(nic: Nic, chosen: Card, fitting: Sequence[Card]) -> Problem:
    names = " and ".join(f"{card.name} ({place_of(card)})" for card in fitting)
    message = f"{len(fitting)} network cards fit the {ROLES[nic.role]}, {names}: {chosen.name} is it."
    hint = "If it is the wrong one, use the other's socket; the hardware profile can tell them apart by path or place."
    return Problem(code="nic-ambiguous", message=message, hint=hint)


def _unused(card: Card) -> Problem:
    message = f"The network card {card.name} ({place_of(card)}) is another for the uplink, which uses one alone."
    return Problem(code="nic-unused", message=message, hint="It takes over when the first one is gone.")


def _lonely(card: Card) -> Problem:
    message = f"The uplink's bond has one network card alone, {card.name} ({place_of(card)})."
    return Problem(code="bond-short", message=message, hint="Another one for the role joins it when it is plugged in.")


def _unknown(card: Card) -> Problem:
    message = f"The network card {card.name} ({place_of(card)}) has no role here and is left alone."
    return Problem(code="nic-unknown", message=message, hint="The hardware profile of the firmware says which has one.")

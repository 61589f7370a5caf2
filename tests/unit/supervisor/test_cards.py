"""Which network card has which role, by path, MAC address, driver or place, and what is said where it is in doubt."""

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import hwprofile
from appliance.host.hardware import Card
from appliance.hwprofile import HardwareProfile, Nic, Role
from appliance.supervisor.cards import Roles, match, place_of, told, unnamed

QEMU = hwprofile.load(Path(__file__).resolve().parents[3] / "hwprofiles" / "qemu.toml")
PCI = "/sys/devices/pci0000:00/0000:00:{slot:02x}.0/virtio{slot}"
FIRST = Card(name="zfirst", mac="52:54:00:00:00:01", driver="virtio_net", path=PCI.format(slot=2))
SECOND = Card(name="enp0s3", mac="52:54:00:00:00:02", driver="virtio_net", path=PCI.format(slot=3))
OTHER = Card(name="eth9", mac="3c:ec:ef:00:00:03", driver="e1000e", path="/sys/devices/pci0000:00/0000:00:01.0")


def asking(*nics: Nic) -> HardwareProfile:
    """A profile with these cards."""
    return msgspec.structs.replace(QEMU, nics=nics)


def roles(profile: HardwareProfile | None, *cards: Card) -> dict[str, str]:
    """The names of the cards, by role."""
    found = match(profile, cards, "edge")
    return {card.name: role for role, card in (*(("uplink", card) for card in found.uplinks), *found.others)}


def codes(found: Roles) -> list[str]:
    """What is said, as codes."""
    return [problem.code for problem in found.findings]


def held(card: Card, by: str = "edge", name: str = "uplink") -> Card:
    """The card after it was moved, and got a name there."""
    return msgspec.structs.replace(card, held_in=by, held_as=name)


@pytest.mark.parametrize(
    ("nic", "name"),
    [
        (Nic(role="uplink", path="0000:00:03.0"), "enp0s3"),
        (Nic(role="uplink", mac="52:54:00:00:00:02"), "enp0s3"),
        (Nic(role="uplink", mac="3c:ec:ef"), "eth9"),
        (Nic(role="uplink", driver="e1000e"), "eth9"),
        (Nic(role="uplink", driver="virtio_net", place=1), "enp0s3"),
        (Nic(role="uplink", place=0), "eth9"),
        (Nic(role="uplink", mac="52:54:00", path="0000:00:02.0"), "zfirst"),
    ],
)
def test_a_card_is_named_by_path_mac_driver_or_place(nic: Nic, name: str) -> None:
    assert roles(asking(nic), SECOND, OTHER, FIRST) == {name: "uplink"}


def test_of_two_that_fit_the_first_by_bus_address_is_taken_and_a_person_is_told_of_both() -> None:
    found = match(QEMU, [SECOND, OTHER, FIRST], "edge")
    assert [card.name for card in found.uplinks] == ["zfirst"]
    assert codes(found) == ["nic-ambiguous", "nic-unknown"]
    assert found.findings[0].message == (
        "2 network cards fit the uplink, zfirst (virtio_net 0000:00:02.0) and enp0s3 (virtio_net 0000:00:03.0): "
        "zfirst is it."
    )
    assert "eth9 (e1000e 0000:00:01.0) has no role" in found.findings[1].message


def test_each_role_gets_its_own_card_and_the_more_exact_name_counts_first() -> None:
    by_driver, by_mac = Nic(role="uplink", driver="virtio_net"), Nic(role="cluster", mac=FIRST.mac)
    found = match(asking(by_driver, by_mac, Nic(role="management", place=0)), [FIRST, SECOND, OTHER], "edge")
    assert [(role, card.name) for role, card in found.others] == [("cluster", "zfirst"), ("management", "eth9")]
    assert [card.name for card in found.uplinks] == ["enp0s3"]
    assert found.findings == ()


def test_a_missing_card_is_said_and_the_others_have_their_roles() -> None:
    profile = asking(Nic(role="uplink", driver="e1000e"), Nic(role="cluster", path="0000:00:02.0"))
    found = match(profile, [FIRST], "edge")
    assert (found.uplinks, found.others) == ((), (("cluster", FIRST),))
    assert [problem.message for problem in found.findings] == [
        "The network card for the uplink (driver e1000e) is not there: the machine has no way out."
    ]


def test_of_two_cards_for_the_uplink_the_second_takes_over_when_the_first_is_gone() -> None:
    profile = asking(Nic(role="uplink", path="0000:00:02.0"), Nic(role="uplink", path="0000:00:03.0"))
    both = match(profile, [FIRST, SECOND], "edge")
    assert ([card.name for card in both.uplinks], codes(both)) == (["zfirst"], ["nic-unused"])
    one = match(profile, [SECOND], "edge")
    assert ([card.name for card in one.uplinks], codes(one)) == (["enp0s3"], ["nic-missing"])


def test_a_card_that_is_the_uplink_stays_it_when_an_earlier_one_is_plugged_in() -> None:
    assert roles(asking(Nic(role="uplink", driver="virtio_net", place=0)), FIRST, held(SECOND)) == {"enp0s3": "uplink"}


def test_a_bond_has_all_cards_that_fit_the_role_and_a_card_for_another_role_is_none_of_them() -> None:
    profile = asking(Nic(role="uplink", driver="virtio_net"), Nic(role="cluster", path="0000:00:04.0"))
    third = msgspec.structs.replace(SECOND, name="enp0s4", path=PCI.format(slot=4))
    found = match(profile, [third, held(SECOND), FIRST], "edge", bonded=True)
    assert [card.name for card in found.uplinks] == ["zfirst", "enp0s3"]
    assert ([card.name for _, card in found.others], found.findings) == (["enp0s4"], ())


def test_a_bond_takes_no_more_cards_than_the_profile_has_places_for() -> None:
    profile = asking(*(Nic(role="uplink", driver="virtio_net", place=place) for place in (0, 1)))
    third = msgspec.structs.replace(SECOND, name="enp0s4", path=PCI.format(slot=4))
    found = match(profile, [FIRST, held(SECOND), held(third)], "edge", bonded=True)
    assert [card.name for card in found.uplinks] == ["enp0s3", "enp0s4"]
    assert codes(found) == ["nic-unknown"]


def test_a_bond_of_one_card_runs_and_is_said() -> None:
    found = match(QEMU, [FIRST], "edge", bonded=True)
    assert ([card.name for card in found.uplinks], codes(found)) == (["zfirst"], ["bond-short"])


def test_a_card_that_the_profile_does_not_mean_is_given_back() -> None:
    assert roles(QEMU, held(OTHER), FIRST) == {"zfirst": "uplink"}


def test_the_uplink_stays_it_though_an_entry_before_its_own_finds_a_card_later() -> None:
    profile = asking(Nic(role="uplink", driver="virtio_net"), Nic(role="uplink", mac="52:54:00", place=0))
    assert match(profile, [FIRST], "edge").uplinks == (FIRST,)
    assert match(profile, [held(FIRST), SECOND], "edge").uplinks == (held(FIRST),)


def test_the_cards_of_a_bond_have_their_entries_whichever_was_moved_already() -> None:
    profile = asking(
        Nic(role="uplink", place=0), Nic(role="uplink", driver="virtio_net"), Nic(role="uplink", mac="52:54:00")
    )
    new, moved = ([FIRST, SECOND], [held(FIRST), held(SECOND)])
    assert codes(match(profile, moved, "edge", bonded=True)) == codes(match(profile, new, "edge", bonded=True))


def test_a_card_in_another_namespace_is_nobodys() -> None:
    assert match(QEMU, [held(FIRST, "other")], "edge").uplinks == ()


@pytest.mark.parametrize("profile", [QEMU, None])
def test_where_nothing_tells_the_drivers_the_first_name_is_it(profile: HardwareProfile | None) -> None:
    assert roles(profile, Card(name="enp0s3", mac=""), Card(name="enp0s2", mac="")) == {"enp0s2": "uplink"}


def test_a_card_without_hardware_is_called_by_its_mac_address() -> None:
    assert place_of(Card(name="eth0", mac="02:00:00:00:00:01")) == "02:00:00:00:00:01"


SLOTS = st.integers(1, 6)
DRIVERS = st.sampled_from(["virtio_net", "e1000e", "igc"])


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Card, ...]:
    """The cards of a box, in any order, no two in one socket."""
    slots = draw(st.lists(SLOTS, unique=True, max_size=5))
    return tuple(
        Card(name=f"n{slot}", mac=f"52:54:00:00:00:0{slot}", driver=draw(DRIVERS), path=PCI.format(slot=slot))
        for slot in slots
    )


@st.composite
def profiles(draw: st.DrawFn) -> HardwareProfile:
    """Profiles that the schema takes."""
    wanted: list[Role] = ["uplink", *draw(st.lists(st.sampled_from(["uplink", "cluster", "management"]), max_size=3))]  # type: ignore[list-item] # roles
    nics = tuple(
        Nic(
            role=role,
            path=draw(st.none() | SLOTS.map(lambda slot: f"0000:00:{slot:02x}.0")),
            mac=draw(st.none() | st.just("52:54:00") | SLOTS.map(lambda slot: f"52:54:00:00:00:0{slot}")),
            driver=draw(st.none() | DRIVERS),
            place=draw(st.none() | st.integers(0, 2)),
        )
        for role in wanted
    )
    profile = asking(*nics)
    try:
        return hwprofile.parse(msgspec.toml.encode(profile).decode())
    except hwprofile.InvalidProfile:
        return asking(Nic(role="uplink", driver="virtio_net"), Nic(role="cluster", place=draw(st.integers(0, 2))))


@given(profiles(), boxes(), st.booleans())
def test_every_card_has_one_role_or_is_spoken_of(
    profile: HardwareProfile, cards: tuple[Card, ...], bonded: bool
) -> None:
    found = match(profile, cards, "edge", bonded=bonded)
    with_role = [*found.uplinks, *(card for _, card in found.others)]
    assert len({card.name for card in with_role}) == len(with_role)
    said = " ".join(problem.message for problem in found.findings)
    assert all(card in with_role or f"{card.name} (" in said for card in cards)
    entries = len(with_role) + codes(found).count("nic-unused") + codes(found).count("nic-missing")
    assert entries >= len(profile.nics) if bonded else entries == len(profile.nics)


@given(profiles(), boxes(), st.randoms(use_true_random=False), st.booleans())
def test_a_restart_of_the_supervisor_finds_the_same_roles(
    profile: HardwareProfile, cards: tuple[Card, ...], chance: random.Random, bonded: bool
) -> None:
    before = match(profile, cards, "edge", bonded=bonded)
    shuffled = list(cards)
    chance.shuffle(shuffled)
    again = [held(card) if card in before.uplinks else card for card in shuffled]
    after = match(profile, again, "edge", bonded=bonded)
    assert [card.name for card in after.uplinks] == [card.name for card in before.uplinks]
    assert (after.others, after.findings) == (before.others, before.findings)


@given(profiles(), boxes(), SLOTS, DRIVERS)
def test_what_is_plugged_in_later_does_not_move_the_uplink(
    profile: HardwareProfile, cards: tuple[Card, ...], slot: int, driver: str
) -> None:
    before = match(profile, cards, "edge")
    new = Card(name="new", mac="52:54:00:00:00:0f", driver=driver, path=PCI.format(slot=slot + 6))
    earlier = Card(name="new", mac="52:54:00:00:00:0f", driver=driver, path=PCI.format(slot=0))
    for more in (new, earlier):
        now = [held(card) if card in before.uplinks else card for card in cards]
        after = match(profile, [*now, more], "edge")
        if before.uplinks:
            assert [card.name for card in after.uplinks] == [card.name for card in before.uplinks]


BY_PLACE = asking(
    Nic(role="uplink", driver="virtio_net", place=0), Nic(role="management", driver="virtio_net", place=1)
)


def test_a_card_that_was_moved_for_a_lan_stays_there_and_never_becomes_the_uplink() -> None:
    assert roles(BY_PLACE, FIRST, SECOND) == {"zfirst": "uplink", "enp0s3": "management"}
    left = match(BY_PLACE, [held(SECOND, name="management")], "edge")
    assert (left.uplinks, left.others) == ((), (("management", held(SECOND, name="management")),))
    assert codes(left) == ["nic-missing"]
    again = [held(SECOND, name="management"), FIRST]
    assert roles(BY_PLACE, *again) == {"zfirst": "uplink", "enp0s3": "management"}


def test_what_is_plugged_in_before_a_moved_card_takes_no_role_from_it() -> None:
    new = msgspec.structs.replace(FIRST, name="new", path=PCI.format(slot=1))
    known = [held(FIRST), held(SECOND, name="management"), new]
    assert roles(BY_PLACE, *known) == {"zfirst": "uplink", "enp0s3": "management"}


def test_another_profile_moves_a_card_to_the_role_that_it_names_it_for() -> None:
    by_mac = asking(Nic(role="uplink", mac=SECOND.mac), Nic(role="management", mac=FIRST.mac))
    assert roles(by_mac, held(FIRST), held(SECOND, name="management")) == {"enp0s3": "uplink", "zfirst": "management"}


def test_a_lan_without_a_card_in_the_profile_is_told() -> None:
    assert [problem.code for problem in unnamed(QEMU, ["management"])] == ["nic-unnamed"]
    assert unnamed(BY_PLACE, ["management"]) == unnamed(QEMU, []) == ()
    assert [problem.message for problem in unnamed(None, ["cluster"])] == [
        "The cluster LAN is configured, but the hardware profile names no network card for it."
    ]


def test_the_addresses_of_a_lan_are_told_with_its_card() -> None:
    found = match(BY_PLACE, [FIRST, SECOND], "edge")
    nics = told(found, {"management": ("198.51.100.2/24",)})
    assert {nic.role: nic.addresses for nic in nics} == {"uplink": (), "management": ("198.51.100.2/24",)}

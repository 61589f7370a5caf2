"""Which card is the uplink, and what it was told."""

from pathlib import Path

import pytest

from appliance import hwprofile
from appliance.host.hardware import Card
from appliance.supervisor.uplink import by_family, choose, lease

QEMU = hwprofile.load(Path(__file__).resolve().parents[3] / "hwprofiles" / "qemu.toml")
SECOND = Card(
    name="enp0s3", mac="52:54:00:00:00:02", driver="virtio_net", path="/sys/devices/pci0000:00/0000:00:03.0/virtio1"
)
FIRST = Card(
    name="zfirst", mac="52:54:00:00:00:01", driver="virtio_net", path="/sys/devices/pci0000:00/0000:00:02.0/virtio0"
)
OTHER = Card(name="eth9", mac="52:54:00:00:00:03", driver="e1000e", path="/sys/devices/pci0000:00/0000:00:01.0")


def test_the_profile_means_the_first_card_of_its_driver_by_bus_address() -> None:
    choice = choose([SECOND, OTHER, FIRST], [], "edge", QEMU)
    assert choice.name == "zfirst"
    assert len(choice.notes) == 2


def test_a_card_that_already_is_the_uplink_stays_it() -> None:
    assert choose([FIRST], [("edge", "enp0s3"), ("other", "x")], "edge", QEMU).name == "enp0s3"


@pytest.mark.parametrize("profile", [QEMU, None])
def test_where_nothing_tells_the_drivers_the_first_name_is_it(profile: hwprofile.HardwareProfile | None) -> None:
    cards = [Card(name="enp0s3", mac=""), Card(name="enp0s2", mac="")]
    assert choose(cards, [], "edge", profile).name == "enp0s2"


def test_without_a_card_that_fits_there_is_none_and_a_person_is_told() -> None:
    choice = choose([OTHER], [], "edge", QEMU)
    assert choice.name == ""
    assert "virtio_net" in choice.notes[0]


def test_a_lease_that_cannot_be_read_is_an_empty_one(tmp_path: Path) -> None:
    assert lease(tmp_path).resolvers == ()
    (tmp_path / "lease.json").write_text('{"dhcp": {"resolvers": ["192.0.2.53"]}, "version": 1}')
    assert lease(tmp_path).resolvers == ("192.0.2.53",)
    (tmp_path / "lease.json").write_text("{")
    assert lease(tmp_path).resolvers == ()


def test_addresses_are_told_by_family() -> None:
    assert by_family(["192.0.2.7/24", "2001:db8::1/64"]) == (("192.0.2.7",), ("2001:db8::1",))

"""Of what the uplink is made, and what it was told."""

from pathlib import Path

import msgspec

from appliance.config import Network, Side, Uplink
from appliance.hwprofile import Role
from appliance.supervisor.uplink import Links, beside, by_family, lease, links
from appliance.topology import Bond, Nic

STATIC = Uplink(mode="static", address="192.0.2.7/24", gateway="192.0.2.1")


def test_an_uplink_of_one_card_is_that_card() -> None:
    assert links(STATIC, "edge", ["enp0s2"]) == Links(
        nics=(Nic(namespace="edge", name="uplink", match="enp0s2", addresses=("192.0.2.7/24",), leased=()),)
    )


def test_a_vlan_has_the_addresses_and_its_card_has_none() -> None:
    made = links(msgspec.structs.replace(STATIC, vlan=7), "edge", ["enp0s2"])
    assert made.nics == (Nic(namespace="edge", name="enp0s2", match="enp0s2", leased=()),)
    [vlan] = made.vlans
    assert (vlan.name, vlan.parent, vlan.tag) == ("uplink", "enp0s2", 7)
    assert (vlan.addresses, vlan.leased, made.bonds) == (("192.0.2.7/24",), (), ())


def test_a_bond_has_all_cards_as_its_ports() -> None:
    made = links(Uplink(bond="lacp"), "edge", ["enp0s2", "enp0s3"])
    assert [nic.name for nic in made.nics] == ["enp0s2", "enp0s3"]
    assert made.bonds == (Bond(namespace="edge", name="uplink", ports=("enp0s2", "enp0s3")),)
    assert made.vlans == ()


def test_a_vlan_of_a_bond_has_the_bond_below_it() -> None:
    made = links(Uplink(bond="lacp", vlan=4094), "edge", ["enp0s2", "enp0s3"])
    assert [(bond.name, bond.leased) for bond in made.bonds] == [("uplink-bond", ())]
    assert [(vlan.name, vlan.parent, vlan.leased) for vlan in made.vlans] == [("uplink", "uplink-bond", (4, 6))]


def test_without_a_card_there_is_no_uplink() -> None:
    assert links(Uplink(bond="lacp", vlan=7), "edge", []) == Links()


def test_a_lease_that_cannot_be_read_is_an_empty_one(tmp_path: Path) -> None:
    assert lease(tmp_path).resolvers == ()
    (tmp_path / "lease.json").write_text('{"dhcp": {"resolvers": ["192.0.2.53"]}, "version": 1}')
    assert lease(tmp_path).resolvers == ("192.0.2.53",)
    (tmp_path / "lease.json").write_text("{")
    assert lease(tmp_path).resolvers == ()


def test_addresses_are_told_by_family() -> None:
    assert by_family(["192.0.2.7/24", "2001:db8::1/64"]) == (("192.0.2.7",), ("2001:db8::1",))


def test_a_lan_has_its_card_where_it_is_configured_and_there() -> None:
    network = Network(management=Side(mode="static", address="198.51.100.2/24"), cluster=Side())
    both: dict[Role, str] = {"management": "enp3s0", "cluster": "enp2s0"}
    assert beside(network, "edge", both) == (
        Nic(namespace="edge", name="cluster-lan", match="enp2s0"),
        Nic(namespace="edge", name="management", match="enp3s0", addresses=("198.51.100.2/24",), leased=()),
    )
    assert [nic.name for nic in beside(network, "edge", {"cluster": "enp2s0"})] == ["cluster-lan"]
    assert beside(Network(), "edge", both) == ()

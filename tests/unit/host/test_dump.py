"""Links in the kernel's own bytes: what is asked for a bond or a VLAN is what is read of it."""

from pyroute2.iproute.linux import IPBatch

from appliance.host import dump
from appliance.host.dump import Link
from appliance.host.netlink import BONDING
from appliance.topology import LACP


def read(**words: object) -> Link:
    """The link in a request of pyroute2's, which has the same form as the kernel's answers."""
    batch = IPBatch()
    batch.link("add", ifname="uplink", **words)
    return dump._link(bytes(batch.batch)[dump.HEADER.size :])


def test_a_bond_is_known_by_its_mode() -> None:
    found = read(kind="bond", bond_mode=LACP, **BONDING)
    assert (found.name, found.kind, found.mode, found.tag) == ("uplink", "bond", LACP, 0)


def test_a_vlan_is_known_by_its_number_and_by_what_it_is_of() -> None:
    found = read(kind="vlan", link=7, vlan_id=4094)
    assert (found.kind, found.tag, found.peer, found.mode) == ("vlan", 4094, 7, 0)


def test_a_port_of_a_bond_keeps_the_address_that_it_was_made_with() -> None:
    found = read(address="02:00:00:00:00:01", perm_address=bytes.fromhex("525400000007"), master=3)
    assert (found.mac, found.own_mac, found.master) == ("02:00:00:00:00:01", "52:54:00:00:00:07", 3)

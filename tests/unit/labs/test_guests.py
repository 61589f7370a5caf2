"""A machine that runs virtual machines finds their disks; others find none."""

from pathlib import Path

import msgspec

from scripts.labs import guests, machine, topology

BOX = topology.default().machine[0]
DISKS = guests.Disks(usr=Path("/trees/one.erofs"), code=Path("/state/guests/code.erofs"))


def command_line(spec: topology.Machine, disks: guests.Disks | None) -> list[str]:
    sources = machine.Sources(tree=Path("/trees/one"), working_copy=Path("/copy"), disks=disks)
    return machine.command_line(spec, sources, Path("/state"))


def test_a_machine_that_asks_for_guests_gets_both_disks_read_only() -> None:
    argv = command_line(msgspec.structs.replace(BOX, guests=True), DISKS)
    assert "--bind-ro=/trees/one.erofs:/srv/alpha-ren/usr.erofs" in argv
    assert "--bind-ro=/state/guests/code.erofs:/srv/alpha-ren/code.erofs" in argv


def test_other_machines_of_the_same_lab_get_none() -> None:
    assert not any("erofs" in word for word in command_line(BOX, DISKS))


def test_the_topology_has_a_field_for_it() -> None:
    text = '[[lan]]\nname = "uplink"\n[[machine]]\nname = "box"\nguests = true\n'
    assert topology.parse(text, Path()).machine[0].guests


def test_the_disk_of_a_tree_is_removed_with_the_tree() -> None:
    disk = guests.usr_of(Path("/build/tree/qemu-0123456789ab"))
    assert disk.parent == Path("/build/tree")
    assert disk.match("qemu-*")

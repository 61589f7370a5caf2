"""Where instances are."""

import msgspec
import pytest

from appliance.component import BadDeclaration, ComponentSpec
from appliance.config import parse
from appliance.supervisor.place import host_end, mac, place
from tests.unit.supervisor.fakes import EDGE, MAIL, QUEUE, specs


def test_addresses_are_network_plus_slot_and_the_gateway_comes_first() -> None:
    config = parse('[network]\ninner4 = "172.16.0.0/16"\ninner6 = "fd00:1:2::/48"\n')
    placed = place(config, specs())
    assert placed[0].instance.name == "edge"
    assert placed[0].legs["dmz"].v4 == "172.16.0.1"
    by_name = {each.instance.name: each for each in placed}
    assert by_name["srv-2"].legs["cluster"].v4 == "172.16.17.2"
    assert by_name["srv-2"].legs["cluster"].v6 == "fd00:1:2:1::102"
    assert by_name["mail"].leg.v4 == "172.16.0.8"


@pytest.mark.parametrize(
    ("instances", "said"),
    [
        ((EDGE, msgspec.structs.replace(QUEUE, slot=1)), "slot"),
        ((EDGE, msgspec.structs.replace(QUEUE, name="edge")), "name"),
        ((QUEUE, MAIL), "uplink"),
        ((EDGE, msgspec.structs.replace(QUEUE, slot=4094)), "4094"),
        ((EDGE, msgspec.structs.replace(QUEUE, legs=())), "no leg"),
    ],
)
def test_declarations_that_clash_are_refused(instances: tuple[object, ...], said: str) -> None:
    with pytest.raises(BadDeclaration, match=said):
        place(parse(""), (ComponentSpec(name="x", instances=instances),))  # type: ignore[arg-type]


def test_mac_addresses_and_interface_names_tell_all_slots_apart() -> None:
    slots = range(1, 4094)
    macs = {mac(network, slot) for slot in slots for network in ("dmz", "cluster")}
    names = {host_end(network, slot) for slot in slots for network in ("dmz", "cluster")}
    assert len(macs) == len(names) == 2 * len(slots)
    assert all(int(each[:2], 16) & 3 == 2 for each in macs)
    assert all(len(name) <= 15 for name in names)

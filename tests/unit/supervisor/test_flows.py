"""The table of flows: written by hand for a small machine, compared with what is derived."""

import msgspec
import pytest

from appliance.component import BadDeclaration, ComponentSpec, Peer
from appliance.config import Config
from appliance.supervisor.flows import flow_table
from appliance.supervisor.place import place
from tests.unit.supervisor.fakes import EDGE, QUEUE, specs

EXPECTED = {
    "srv-1 to queue 7156/tcp",
    "srv-2 to queue 7156/tcp",
    "mail to queue 7156/tcp",
    "edge to names 53/udp",
    "queue to names 53/udp",
    "mail to names 53/udp",
    "srv-1 to names 53/udp",
    "srv-2 to names 53/udp",
    "edge to srv-1 7180/tcp",
    "edge to srv-2 7180/tcp",
    "names to any 53/udp",
    "mail to 192.0.2.0/24 25/tcp",
    "srv-1 to any 80/tcp",
    "srv-1 to any 443/tcp",
    "srv-2 to any 80/tcp",
    "srv-2 to any 443/tcp",
    "any to edge 443/tcp",
    "any to queue 7156/tcp",
}


def test_the_table_has_what_is_declared_or_follows_from_it_and_nothing_else() -> None:
    flows = flow_table(place(Config(), specs()))
    assert {flow.key for flow in flows} == EXPECTED
    assert len(flows) == len(EXPECTED)


def test_a_flow_between_networks_leaves_on_the_home_of_its_source() -> None:
    via = {flow.key: flow.via for flow in flow_table(place(Config(), specs()))}
    assert via["mail to queue 7156/tcp"] == "dmz"
    assert via["srv-1 to queue 7156/tcp"] == "cluster"
    assert via["any to edge 443/tcp"] == "uplink"


def test_a_peer_that_is_no_component_is_a_bad_declaration() -> None:
    lost = msgspec.structs.replace(QUEUE, peers=(Peer(component="nobody", port="x", reason="because"),))
    with pytest.raises(BadDeclaration, match="nobody"):
        flow_table(
            place(
                Config(),
                (ComponentSpec(name="edge", instances=(EDGE,)), ComponentSpec(name="queue", instances=(lost,))),
            )
        )


def test_only_the_gateway_may_answer_the_outside() -> None:
    ports = tuple(msgspec.structs.replace(port, outside=True) for port in QUEUE.ports)
    open_queue = msgspec.structs.replace(QUEUE, ports=ports)
    with pytest.raises(BadDeclaration, match="no uplink"):
        flow_table(
            place(
                Config(),
                (ComponentSpec(name="edge", instances=(EDGE,)), ComponentSpec(name="queue", instances=(open_queue,))),
            )
        )

"""What the broker is told: where to listen, and whom to let in."""

import msgspec

from appliance.component import Site
from appliance.config import Config, Queue, QueueLimit, QueuePeer, QueueRoute
from appliance.contracts.access import Access, AccessList, Rights
from appliance.queue.settings import BridgeSettings, BrokerSettings, GateSettings
from appliance.queue.spec import SOCKET, declare, render
from appliance.topology import ANYWHERE
from tests.unit.placement import site_of

ENTRY = Access(name="arsrv-1", public_key="k" * 40, rights=Rights(publish=("flow.*",)))


def test_the_broker_listens_to_the_cluster_and_to_the_host() -> None:
    [broker] = declare(Config()).instances
    assert isinstance(broker.settings, BrokerSettings)
    assert broker.settings.bind == ("tcp://10.156.16.2:7156", f"ipc://{SOCKET}")
    [unit] = broker.units
    assert unit.state_directory
    assert unit.writable == (SOCKET.rpartition("/")[0],)


def test_it_lets_in_exactly_the_keys_of_the_site_and_is_not_restarted_for_a_new_one() -> None:
    site: Site = msgspec.structs.replace(site_of(Config()), access=(ENTRY,))
    [file] = render(site, site.find("queue"))
    assert msgspec.json.decode(file.content, type=AccessList) == AccessList(entries=(ENTRY,))
    assert (file.reloads, file.restarts) == ((), ())
    [broker] = declare(Config()).instances
    assert isinstance(broker.settings, BrokerSettings)
    assert broker.settings.access_file.endswith(f"/{file.name}")


def test_there_is_a_gate_where_a_peer_is_listed_and_it_shares_a_socket_with_the_broker_alone() -> None:
    config = Config(queue=Queue(peers=(QueuePeer(name="far/east", public_key="k" * 40, publish=("in.*",)),)))
    broker, gate = declare(config).instances
    assert [(forward.number, gate.port(forward.port).number) for forward in gate.forwards] == [(7156, 7156)]
    assert (gate.legs, gate.peers, gate.egress, gate.rights) == (("dmz",), (), (), Rights())
    assert isinstance(gate.settings, GateSettings)
    assert isinstance(broker.settings, BrokerSettings)
    assert gate.settings.bind == ("tcp://10.156.0.9:7156", "tcp://[fd9c:156::9]:7156")
    assert gate.settings.broker == f"ipc://{broker.settings.gate_socket}"
    assert gate.settings.memory_mb == gate.resources.memory_mb
    assert broker == declare(Config()).instances[0], "the broker is not restarted for it"


def test_a_peer_that_is_listed_with_a_key_of_the_machine_does_not_take_it_over() -> None:
    peers = tuple(
        QueuePeer(name=f"far/{key}", public_key=key * 40, next_key=following * 40, publish=("in.*",))
        for key, following in ("km", "lk")
    )
    site: Site = msgspec.structs.replace(site_of(Config(queue=Queue(peers=peers))), access=(ENTRY,))
    [file] = render(site, site.find("queue"))
    entries = msgspec.json.decode(file.content, type=AccessList).entries
    assert [(entry.name, entry.public_key[0], entry.outside) for entry in entries] == [
        ("arsrv-1", "k", False), ("far/k", "m", True), ("far/l", "l", True),
    ]  # fmt: skip


def test_both_keys_of_a_peer_are_let_in_as_one() -> None:
    peer = QueuePeer(name="far/east", public_key="m" * 40, next_key="n" * 40, publish=("in.*",))
    site = site_of(Config(queue=Queue(peers=(peer,))))
    [file] = render(site, site.find("queue"))
    now, following = (e for e in msgspec.json.decode(file.content, type=AccessList).entries if e.outside)
    assert (now.public_key, following.public_key) == ("m" * 40, "n" * 40)
    assert msgspec.structs.replace(now, public_key=following.public_key) == following


def test_there_is_a_bridge_where_there_are_routes_and_it_gets_out_to_those_alone() -> None:
    routes = (
        QueueRoute(to="far/east", endpoint="192.0.2.7", server_key="k" * 40, messages_per_s=5.0),
        QueueRoute(to="far/west", endpoint="[2001:db8::7]:7157", server_key="l" * 40, next_key="m" * 40),
        QueueRoute(to="far/south", endpoint="south.example.org:80", server_key="n" * 40),
    )
    broker, bridge = declare(Config(queue=Queue(routes=routes))).instances
    assert [(way.to, way.port) for way in bridge.egress] == [
        ("192.0.2.7/32", 7156), ("2001:db8::7/128", 7157), (ANYWHERE, 80),
    ]  # fmt: skip
    assert bridge.rights.consume == ("far/east/*", "far/west/*", "far/south/*")
    assert (bridge.rights.publish, bridge.rights.emit, bridge.ports, bridge.forwards) == ((), (), (), ())
    assert isinstance(bridge.settings, BridgeSettings)
    assert [route.endpoint for route in bridge.settings.routes] == [
        "tcp://192.0.2.7:7156", "tcp://[2001:db8::7]:7157", "tcp://south.example.org:80",
    ]  # fmt: skip
    assert broker == declare(Config()).instances[0], "the broker is not restarted for it"


def test_a_peer_speaks_for_itself_and_routes_are_known_to_the_broker() -> None:
    peers = (
        QueuePeer(name="far/east", public_key="k" * 40, publish=("in.*",)),
        QueuePeer(name="far/west", public_key="l" * 40, publish=("in.*", "far/east/*"), transit=True),
    )
    routes = (QueueRoute(to="far/east", endpoint="192.0.2.7", server_key="m" * 40),)
    site = site_of(Config(queue=Queue(routes=routes, peers=peers)))
    [file] = render(site, site.find("queue"))
    listed = msgspec.json.decode(file.content, type=AccessList)
    assert listed.routes == ("far/east",)
    east, west = (entry for entry in listed.entries if entry.outside)
    assert (east.name, east.outside, east.rights) == (
        "far/east", True, Rights(publish=("in.*",), relay=("far/east/*",)),
    )  # fmt: skip
    assert west.rights.relay == ("*/*/*",)
    for other in site.placed:
        if other.component == "queue" and other.instance.name != "queue":
            assert list(render(site, other)) == []


def test_limits_go_from_the_configuration_to_the_broker() -> None:
    limits = (QueueLimit(pattern="flow.*", max_depth=10), QueueLimit(pattern="*", rate=5.0))
    [broker, *_] = declare(Config(queue=Queue(limits=limits))).instances
    assert isinstance(broker.settings, BrokerSettings)
    assert broker.settings.limits == limits

"""What the broker is told: where to listen, and whom to let in."""

import msgspec

from appliance.component import Site
from appliance.config import Config, Queue, QueuePeer
from appliance.contracts.access import Access, AccessList, Rights
from appliance.queue.settings import BrokerSettings, GateSettings
from appliance.queue.spec import SOCKET, declare, render
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
    peers = tuple(QueuePeer(name=f"far/{key}", public_key=key * 40, publish=("in.*",)) for key in ("k", "l"))
    site: Site = msgspec.structs.replace(site_of(Config(queue=Queue(peers=peers))), access=(ENTRY,))
    [file] = render(site, site.find("queue"))
    entries = msgspec.json.decode(file.content, type=AccessList).entries
    assert [(entry.name, entry.outside) for entry in entries] == [("arsrv-1", False), ("far/l", True)]

"""What the broker is told: where to listen, and whom to let in."""

import msgspec

from appliance.component import Site
from appliance.config import Config
from appliance.contracts.access import Access, AccessList, Rights
from appliance.queue.settings import BrokerSettings
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

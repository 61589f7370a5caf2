"""The rulesets: what is in them only where it is needed. What they let through is probed in the lab."""

import pytest

from appliance.config import Config, Network, Uplink
from appliance.supervisor.desired import Facts, desired
from tests.unit.supervisor.fakes import Keys, specs

STATIC = Config(network=Network(uplink=Uplink(mode="static", address="192.0.2.10/24", gateway="192.0.2.1")))


@pytest.mark.parametrize(("config", "has"), [(Config(), True), (STATIC, False)], ids=["dhcp", "static"])
def test_only_an_uplink_that_asks_for_its_address_hears_the_answer(config: Config, has: bool) -> None:
    machine = desired(config, specs(), Facts(public_keys=Keys())).machine
    rulesets = {each.namespace: each.text for each in machine.rulesets}
    for spoken in ("udp dport 68", "udp dport 546", "nd-router-advert", "nd-router-solicit"):
        assert (spoken in rulesets["edge"]) == has
        assert not any(spoken in text for name, text in rulesets.items() if name != "edge")

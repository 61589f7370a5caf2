"""The rulesets: what is in them only where it is needed. What they let through is probed in the lab."""

import pytest

from appliance.config import Config, Network, Uplink
from appliance.supervisor.desired import Facts, desired
from tests.unit.supervisor.fakes import Keys, specs

STATIC = Uplink(mode="static", address="192.0.2.10/24", gateway="192.0.2.1")
AUTO6 = Uplink(mode="static", address="192.0.2.10/24", gateway="192.0.2.1", mode6="auto")
FOUR = ("udp dport 68", "udp dport 67")
SIX = ("udp dport 546", "udp dport 547", "nd-router-advert", "nd-router-solicit")


@pytest.mark.parametrize(
    ("uplink", "heard"),
    [(Uplink(), FOUR + SIX), (STATIC, ()), (AUTO6, SIX), (Uplink(mode6="off"), FOUR)],
    ids=["dhcp", "static", "static and auto", "dhcp and off"],
)
def test_only_an_uplink_that_asks_for_its_address_hears_the_answer(uplink: Uplink, heard: tuple[str, ...]) -> None:
    machine = desired(Config(network=Network(uplink=uplink)), specs(), Facts(public_keys=Keys())).machine
    rulesets = {each.namespace: each.text for each in machine.rulesets}
    for spoken in FOUR + SIX:
        assert (spoken in rulesets["edge"]) == (spoken in heard)
        assert not any(spoken in text for name, text in rulesets.items() if name != "edge")

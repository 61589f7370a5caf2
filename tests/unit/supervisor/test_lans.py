"""LANs on cards of their own: what the firmware's components let in there, and that it stays there."""

import pytest

from appliance.config import Config, parse
from appliance.hwprofile import Role
from appliance.supervisor.cutoff import ways_touched
from appliance.supervisor.desired import Facts, desired
from appliance.supervisor.registry import specs
from appliance.topology import Machine
from tests.unit.supervisor.fakes import Keys

PEER = "[[queue.peers]]\nname = 'far/west'\npublic_key = '" + "k" * 40 + "'\npublish = ['in.*']\n"
CLUSTER = '[network.cluster]\nmode = "static"\naddress = "198.51.100.2/24"\n'
MANAGEMENT = "[network.management]\n"
CARDS: dict[Role, str] = {"cluster": "enp2s0", "management": "enp3s0"}
FLOWS = {
    "cluster-lan to gate 7156/tcp": "is handed on from port 7156 on the cluster LAN",
    "management to ardpx 443/tcp": "answers the management LAN",
    "management to ardpx 80/tcp": "answers the management LAN",
}


def machine(text: str, cards: dict[Role, str] | None = None) -> Machine:
    """The firmware's own machine with these cards beside its uplink."""
    config: Config = parse(text)
    lans = CARDS if cards is None else cards
    facts = Facts(public_keys=Keys(), uplink_nics=("enp1s0",), lan_nics=lans)
    return desired(config, specs(config), facts).machine


def rules(made: Machine) -> list[str]:
    """The gateway's rules, one a line."""
    return next(each.text for each in made.rulesets if each.namespace == "ardpx").splitlines()


def test_only_what_is_configured_is_let_in_and_each_row_says_from_where_and_why() -> None:
    both, none = machine(PEER + CLUSTER + MANAGEMENT), machine(PEER)
    more = {flow.key: flow.reason for flow in both.flows if flow not in none.flows}
    assert more == FLOWS
    assert {flow.key: flow.via for flow in both.flows if flow.key in FLOWS} == {
        "cluster-lan to gate 7156/tcp": "dmz",
        "management to ardpx 443/tcp": "management",
        "management to ardpx 80/tcp": "management",
    }
    assert {flow.key for flow in machine(CLUSTER).flows} == {flow.key for flow in machine("").flows}


def test_nothing_passes_between_a_lan_and_the_uplink_or_another_lan() -> None:
    written = rules(machine(PEER + CLUSTER + MANAGEMENT))
    lans = [rule for rule in written if "cluster-lan" in rule or "management" in rule]
    passing = [rule for rule in lans if "iifname" in rule and "oifname" in rule]
    assert [rule.split(" ct ")[0].strip() for rule in passing] == ['iifname "cluster-lan" oifname "dmz"'] * 2
    assert not any("masquerade" in rule for rule in lans)


def test_only_a_lan_that_asks_for_its_address_hears_the_answer() -> None:
    lines = rules(machine(PEER + CLUSTER + MANAGEMENT))
    assert any('iifname "management" udp sport 67 udp dport 68' in line for line in lines)
    assert not any('"cluster-lan" udp' in line or '"cluster-lan" icmpv6' in line for line in lines)


def test_a_lan_has_no_route_of_its_own() -> None:
    assert machine(CLUSTER + MANAGEMENT).routes == machine("").routes


def test_a_card_that_is_missing_changes_nothing_but_that_it_is_not_there() -> None:
    here, gone = machine(CLUSTER + MANAGEMENT), machine(CLUSTER + MANAGEMENT, {})
    assert [nic.name for nic in here.nics if nic not in gone.nics] == ["cluster-lan", "management"]
    assert (here.flows, here.rulesets, here.units) == (gone.flows, gone.rulesets, gone.units)


@pytest.mark.parametrize(
    ("after", "touched"),
    [
        ("", {"nic ardpx/management goes", "management to ardpx 443/tcp closes", "management to ardpx 80/tcp closes"}),
        (
            '[network.management]\nmode = "static"\naddress = "203.0.113.2/24"\n',
            {"nic ardpx/management changes (addresses, leased)"},
        ),
        (MANAGEMENT + CLUSTER, {"nic ardpx/cluster-lan comes"}),
        (MANAGEMENT + "[arsrv]\ncount = 3\n", set()),
    ],
)
def test_the_management_lan_is_a_way_in(after: str, touched: set[str]) -> None:
    assert set(ways_touched(machine(MANAGEMENT), machine(after))) == touched

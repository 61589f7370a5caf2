"""What could cut somebody off, and what could not."""

import msgspec
import pytest

from appliance.component import Forward, WireGuardPeerSpec
from appliance.config import Config, Network, Uplink
from appliance.supervisor.cutoff import ways_touched
from appliance.supervisor.desired import Facts, desired
from appliance.topology import Machine
from tests.unit.supervisor import fakes

STATIC = Uplink(mode="static", address="192.0.2.10/24", gateway="192.0.2.1")


def machine(config: Config | None = None, servers: int = 2) -> Machine:
    """The small machine with a card and a VPN."""
    facts = Facts(public_keys=fakes.Keys(), uplink_nics=("enp0s2",))
    return desired(config or Config(), fakes.specs(servers, vpn=True), facts).machine


def uplink(**fields: str) -> Config:
    """A static uplink that differs in some fields."""
    return Config(network=Network(uplink=msgspec.structs.replace(STATIC, **fields)))


@pytest.mark.parametrize(
    ("before", "after", "touched"),
    [
        (Config(), uplink(), {"nic edge/uplink changes (addresses, leased)", "route edge/default comes"}),
        (uplink(), uplink(address="192.0.2.11/24"), {"nic edge/uplink changes (addresses)"}),
        (
            uplink(),
            uplink(gateway="2001:db8::1", address="2001:db8::2/64"),
            {"nic edge/uplink changes (addresses)", "route edge/default goes", "route edge/default6 comes"},
        ),
    ],
)
def test_another_uplink_touches_the_way_in(before: Config, after: Config, touched: set[str]) -> None:
    assert set(ways_touched(machine(before), machine(after))) == touched


def test_other_inner_networks_touch_it_since_they_might_hide_where_the_operator_is() -> None:
    touched = ways_touched(machine(), machine(Config(network=Network(inner4="10.9.0.0/16"))))
    assert {"veth edge/dmz changes (addresses)", "veth edge/cluster changes (addresses)"} <= set(touched)


def test_what_is_inside_may_come_and_go() -> None:
    assert ways_touched(machine(servers=2), machine(servers=5)) == ()
    assert ways_touched(machine(servers=5), machine(servers=2)) == ()


def test_a_port_that_closes_for_the_outside_is_a_way_in_that_goes_and_one_that_opens_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = (*fakes.QUEUE.forwards, Forward(port="other", number=9000))
    ports = (*fakes.QUEUE.ports, msgspec.structs.replace(fakes.QUEUE.ports[0], name="other", number=9000))
    closed = machine()
    monkeypatch.setattr(fakes, "QUEUE", msgspec.structs.replace(fakes.QUEUE, forwards=more, ports=ports))
    opened = machine()
    assert ways_touched(closed, opened) == ()
    assert ways_touched(opened, closed) == ("any to queue 9000/tcp closes",)


def test_a_vpn_peer_may_come_but_not_go(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = fakes.VPN.wireguard
    assert spec is not None
    one = machine()
    another = WireGuardPeerSpec(public_key="L" * 43 + "=", allowed=("10.157.0.3/32",))
    both = msgspec.structs.replace(spec, peers=(*spec.peers, another))
    monkeypatch.setattr(fakes, "VPN", msgspec.structs.replace(fakes.VPN, wireguard=both))
    two = machine()
    assert ways_touched(one, two) == ()
    assert ways_touched(two, one) == ("wireguard vpn/wg changes (peers)",)


def test_what_vpn_peers_may_reach_is_a_way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine()
    monkeypatch.setattr(fakes, "VPN", msgspec.structs.replace(fakes.VPN, peers=()))
    assert ways_touched(before, machine()) == ("vpn to edge 443/tcp closes",)

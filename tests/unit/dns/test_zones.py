"""The zones say where everything is, and put the servers in ARHAV's order."""

import pytest

from appliance.config import Config, Machine
from appliance.contracts.member import Member, Members
from appliance.contracts.order import Order, Rank
from appliance.dns.zones import members_zone, reverse_records, services_zone, static_zone, zones_of
from tests.unit.placement import site_of

ZONES = zones_of(Machine(name="box", lan="plant", cluster="main"))


def member(name: str, number: int = 1) -> Member:
    return Member(name=name, component="arsrv", v4=f"10.156.17.{number}", v6=f"fd9c:156:0:1::{number:x}", port=7180)


def members(*names: str) -> Members:
    return Members(revision=3, members=tuple(member(name, number) for number, name in enumerate(names, start=1)))


def order(*ranks: tuple[str, str]) -> Order:
    return Order(
        at=0.0,
        ranks=tuple(
            Rank(name=name, presence="up" if presence == "up" else "down", rtt_s=0.001, cost=0.001, pending=0)
            for name, presence in ranks
        ),
    )


def priorities(zone: str) -> dict[str, int]:
    lines = [line.split() for line in zone.splitlines() if " SRV " in line]
    return {target.partition(".")[0]: int(priority) for _, _, priority, _, _, target in lines}


def test_the_zones_are_below_the_cluster_and_the_lan() -> None:
    assert ZONES.own == "main.plant.alpha-ren.internal"
    assert (ZONES.members, ZONES.services) == (f"members.{ZONES.own}", f"_tcp.{ZONES.own}")


def test_every_instance_on_the_machine_has_its_addresses_and_its_way_back() -> None:
    placed = site_of(Config()).placed
    zone = static_zone(ZONES, placed)
    assert "\nqueue A 10.156.16.2\nqueue AAAA fd9c:156:0:1::2\n" in zone
    assert "\narmail A 10.156.0.8\n" in zone
    back = reverse_records(ZONES, placed)
    assert ("10.156.0.1", f"ardpx.{ZONES.own}.") in back
    assert ("10.156.16.1", f"ardpx.{ZONES.own}.") in back


def test_members_have_addresses_and_the_best_server_the_lowest_priority() -> None:
    joined = members("arsrv-1", "arsrv-2")
    assert "arsrv-2 A 10.156.17.2\narsrv-2 AAAA fd9c:156:0:1::2\n" in members_zone(ZONES, joined)
    zone = services_zone(ZONES, joined, order(("arsrv-2", "up"), ("arsrv-1", "up")))
    assert f"_hooks SRV 10 0 7180 arsrv-2.{ZONES.members}.\n" in zone
    assert priorities(zone) == {"arsrv-2": 10, "arsrv-1": 20}


def test_a_server_that_is_down_is_no_longer_named() -> None:
    zone = services_zone(ZONES, members("arsrv-1", "arsrv-2"), order(("arsrv-2", "up"), ("arsrv-1", "down")))
    assert priorities(zone) == {"arsrv-2": 10}


def test_with_all_servers_down_all_are_named() -> None:
    zone = services_zone(ZONES, members("arsrv-1", "arsrv-2"), order(("arsrv-2", "down"), ("arsrv-1", "down")))
    assert set(priorities(zone)) == {"arsrv-1", "arsrv-2"}


def test_a_server_nobody_has_measured_comes_after_those_that_are_known() -> None:
    joined = members("arsrv-1", "arsrv-2", "arsrv-3")
    known = services_zone(ZONES, joined, order(("arsrv-3", "up")))
    assert priorities(known) == {"arsrv-3": 10, "arsrv-1": 20, "arsrv-2": 30}
    assert set(priorities(services_zone(ZONES, joined, None))) == {"arsrv-1", "arsrv-2", "arsrv-3"}


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a\nevil A 192.0.2.1", "a.b", "-a", "a;"])
def test_a_name_that_is_no_label_writes_no_line(name: str) -> None:
    joined = Members(revision=1, members=(member(name), member("arsrv-1", 2)))
    assert [line for line in members_zone(ZONES, joined).splitlines() if " A " in line] == ["arsrv-1 A 10.156.17.2"]
    assert priorities(services_zone(ZONES, joined, None)) == {"arsrv-1": 10}


def test_an_address_that_is_none_writes_no_line() -> None:
    broken = Member(name="arsrv-9", component="arsrv", v4="10.0.0.1\n@ NS evil.", v6="::1", port=7180)
    assert "evil" not in members_zone(ZONES, Members(revision=1, members=(broken,)))

"""The gateway: who may be spoken to, and what a static uplink does without."""

import msgspec
import pytest

from appliance.ardpx.spec import declare
from appliance.config import Config, Network, Side, Uplink
from tests.unit.placement import rendered

STATIC = Config(network=Network(uplink=Uplink(mode="static", address="198.51.100.7/24", gateway="198.51.100.1")))


def test_the_gateway_answers_the_outside_on_two_ports() -> None:
    [gateway] = declare(Config()).instances
    assert gateway.is_gateway
    assert {(port.number, port.outside) for port in gateway.ports} == {(443, True), (80, True)}


def test_only_a_dhcp_uplink_has_a_client() -> None:
    assert [unit.name for unit in declare(Config()).instances[0].units] == ["", "uplink"]
    assert [unit.name for unit in declare(STATIC).instances[0].units] == [""]
    assert set(rendered("ardpx", STATIC)) == {"haproxy.cfg"}


@pytest.mark.parametrize(
    ("uplink", "word"),
    [
        (Uplink(), None),
        (Uplink(mode6="off"), "noipv6"),
        (Uplink(address6="2001:db8::7/64", gateway6="2001:db8::1"), "noipv6"),
        (msgspec.structs.replace(STATIC.network.uplink, mode6="auto"), "noipv4"),
    ],
)
def test_the_client_looks_after_the_ip_versions_that_are_leased(uplink: Uplink, word: str | None) -> None:
    written = rendered("ardpx", Config(network=Network(uplink=uplink)))["dhcpcd.conf"].content.splitlines()
    assert [line for line in written if line in ("noipv4", "noipv6")] == ([word] if word else [])


def test_another_interface_of_the_same_name_gets_a_client_of_its_own() -> None:
    ways = (Uplink(), Uplink(vlan=7), Uplink(vlan=8), Uplink(bond="lacp"), Uplink(bond="lacp", vlan=7))
    written = {rendered("ardpx", Config(network=Network(uplink=uplink)))["dhcpcd.conf"].content for uplink in ways}
    assert len(written) == len(ways)


def test_the_client_runs_the_script_that_is_rendered_beside_it() -> None:
    files = rendered("ardpx")
    assert files["lease-hook"].mode == 0o755
    assert files["lease-hook"].content.startswith("#!/usr/bin/python3 -IS\n")
    assert "script /run/alpha-ren/ardpx/lease-hook\n" in files["dhcpcd.conf"].content


def test_the_proxy_is_no_root_and_gets_the_certificate_from_systemd() -> None:
    proxy = declare(Config()).instances[0].units[0]
    assert (proxy.user, proxy.capabilities) == ("haproxy", ("CAP_NET_BIND_SERVICE",))
    assert [credential.path for credential in proxy.credentials] == ["/var/lib/alpha-ren/identity/console.pem"]


def test_a_lan_is_asked_for_addresses_and_opens_no_way_out() -> None:
    network = Network(uplink=STATIC.network.uplink, management=Side(mode6="off"))
    [gateway] = declare(Config(network=network)).instances
    assert gateway.legs == ("uplink", "dmz", "cluster", "management")
    assert [unit.name for unit in gateway.units] == ["", "uplink"]
    written = rendered("ardpx", Config(network=network))["dhcpcd.conf"].content
    assert "\nallowinterfaces management\n" in written
    assert written.endswith("\ninterface management\nnoipv6\nnogateway\nnooption classless_static_routes\n")

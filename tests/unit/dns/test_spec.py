"""Unbound's configuration: whom it answers, whom it asks."""

import pytest

from appliance.config import Config, Network, Uplink
from appliance.dns.spec import declare
from appliance.topology import ANYWHERE
from tests.unit.placement import rendered

KNOWN = Config(network=Network(uplink=Uplink(resolvers=("192.0.2.53", "2001:db8::53"))))


def test_it_answers_the_inner_networks_only() -> None:
    text = rendered("dns")["unbound.conf"].content
    assert "interface: 10.156.16.5\n" in text
    assert "interface: fd9c:156:0:1::5\n" in text
    allowed = [line.split()[1] for line in text.splitlines() if line.strip().endswith(" allow")]
    assert allowed == ["127.0.0.0/8", "::1/128", "10.156.0.0/16", "fd9c:156::/48"]


def test_it_forwards_to_the_uplinks_resolvers() -> None:
    text = rendered("dns", resolvers=("192.0.2.53", "2001:db8::53"))["unbound.conf"].content
    assert 'forward-zone:\n    name: "."\n    forward-addr: 192.0.2.53\n    forward-addr: 2001:db8::53' in text
    assert "always_refuse" not in text


def test_without_a_resolver_the_outside_is_refused_at_once() -> None:
    text = rendered("dns")["unbound.conf"].content
    assert 'local-zone: "." always_refuse' in text
    assert "forward-zone" not in text


def test_the_inner_networks_reverse_zones_are_its_own() -> None:
    text = rendered("dns")["unbound.conf"].content
    assert 'local-zone: "156.10.in-addr.arpa." static' in text
    assert 'local-zone: "0.0.0.0.6.5.1.0.c.9.d.f.ip6.arpa." static' in text
    assert 'local-data-ptr: "10.156.17.1 arsrv-1.main.lan.alpha-ren.internal."' in text


def test_the_instances_zone_is_reloaded_not_restarted_into() -> None:
    files = rendered("dns")
    assert files["static.zone"].reloads == files["unbound.conf"].reloads == ("unbound",)


@pytest.mark.parametrize(
    ("config", "targets"), [(Config(), {ANYWHERE}), (KNOWN, {"192.0.2.53/32", "2001:db8::53/128"})]
)
def test_it_may_ask_only_the_resolvers_that_are_configured(config: Config, targets: set[str]) -> None:
    egress = declare(config).instances[0].egress
    assert {each.to for each in egress} == targets
    assert {(each.port, each.protocol) for each in egress} == {(53, "udp"), (53, "tcp")}

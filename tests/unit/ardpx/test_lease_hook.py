"""dhcpcd's events become one file: each protocol's latest word, replaced in one step."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.ardpx import lease_hook
from appliance.contracts.lease import Lease, LeasePart, read_lease
from appliance.errors import InvalidInput

BOUND = {
    "protocol": "dhcp",
    "reason": "BOUND",
    "interface": "uplink",
    "new_ip_address": "198.51.100.7",
    "new_subnet_cidr": "24",
    "new_domain_name_servers": "198.51.100.1 198.51.100.2",
}
ADVERT = {
    "protocol": "ra",
    "interface": "uplink",
    "reason": "ROUTERADVERT",
    "nd2_rdnss1_servers": "2001:db8::2",
    "nd1_rdnss1_servers": "fe80::1%uplink 2001:db8::1",
    "nd10_rdnss1_servers": "2001:db8::10",
}
BOUND6 = {
    "protocol": "dhcp6",
    "interface": "uplink",
    "reason": "BOUND6",
    "new_dhcp6_ia_na1_ia_addr1": "2001:db8::50",
    "new_dhcp6_ia_na1_ia_addr1_pltime": "3600",
    "new_dhcp6_name_servers": "2001:db8::1",
}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    source = Path(lease_hook.__file__)
    return Path(shutil.copy(source, tmp_path / "lease-hook"))


def run(script: Path, *events: dict[str, str]) -> Lease:
    for event in events:
        # As dhcpcd starts it: nothing in the environment but PATH and the event.
        subprocess.run([sys.executable, "-IS", script], env={"PATH": os.defpath, **event}, check=True, timeout=30)
    return read_lease(script.with_name("lease.json"))


def test_every_protocol_keeps_its_latest_word(script: Path) -> None:
    lease = run(script, BOUND, ADVERT, BOUND6)
    assert lease.addresses == ("198.51.100.7/24", "2001:db8::50/128")
    assert lease.ra.resolvers == ("fe80::1%uplink", "2001:db8::1", "2001:db8::2", "2001:db8::10")
    assert sorted(path.name for path in script.parent.iterdir()) == ["lease-hook", "lease.json"]


def test_resolvers_come_once_without_those_that_mean_nothing_elsewhere(script: Path) -> None:
    lease = run(script, BOUND, ADVERT, BOUND6)
    assert lease.resolvers == ("198.51.100.1", "198.51.100.2", "2001:db8::1", "2001:db8::2", "2001:db8::10")


def test_an_ended_lease_takes_back_only_its_own(script: Path) -> None:
    lease = run(script, BOUND, BOUND6, {**BOUND, "reason": "EXPIRE"})
    assert lease.dhcp == LeasePart()
    assert lease.addresses == ("2001:db8::50/128",)


def test_a_lost_carrier_and_a_stop_leave_the_file_alone(script: Path) -> None:
    before = run(script, BOUND)
    assert run(script, {"protocol": "link", "reason": "NOCARRIER"}, {"protocol": "link", "reason": "STOPPED"}) == before


def test_no_file_is_an_empty_lease_and_nonsense_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    assert read_lease(path) == Lease()
    path.write_text('{"version": 1, "dhcp": {"resolvers": ["not an address"]}}', encoding="utf-8")
    with pytest.raises(InvalidInput, match="cannot be used"):
        read_lease(path)


def test_a_lan_has_no_say_about_the_way_out(script: Path) -> None:
    before = run(script, BOUND)
    assert run(script, {**BOUND, "interface": "management", "new_domain_name_servers": "203.0.113.1"}) == before

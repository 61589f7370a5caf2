"""What the uplink was told."""

from pathlib import Path

from appliance.supervisor.uplink import by_family, lease


def test_a_lease_that_cannot_be_read_is_an_empty_one(tmp_path: Path) -> None:
    assert lease(tmp_path).resolvers == ()
    (tmp_path / "lease.json").write_text('{"dhcp": {"resolvers": ["192.0.2.53"]}, "version": 1}')
    assert lease(tmp_path).resolvers == ("192.0.2.53",)
    (tmp_path / "lease.json").write_text("{")
    assert lease(tmp_path).resolvers == ()


def test_addresses_are_told_by_family() -> None:
    assert by_family(["192.0.2.7/24", "2001:db8::1/64"]) == (("192.0.2.7",), ("2001:db8::1",))

"""Keys made on the box."""

from pathlib import Path

from appliance.host.wireguard import public_of
from appliance.queue.keys import public_of as curve_public
from appliance.supervisor.keys import KeyStore


def test_keys_are_made_once_for_root_alone(tmp_path: Path) -> None:
    first = KeyStore(tmp_path / "keys").curve(["a", "b"])
    again = KeyStore(tmp_path / "keys").curve(["b", "a"])
    assert first == again
    assert first["a"] != first["b"]
    assert curve_public(first["a"].secret) == first["a"].public
    assert (tmp_path / "keys" / "a.secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_a_half_written_key_from_a_power_cut_is_no_key(tmp_path: Path) -> None:
    (tmp_path / ".a.secret.new").write_text("half")
    assert len(KeyStore(tmp_path).curve(["a"])["a"].secret) == 40


def test_a_wireguard_key_is_one(tmp_path: Path) -> None:
    path = KeyStore(tmp_path).wireguard("vpn")
    assert len(public_of(path.read_text().strip())) == 44
    assert KeyStore(tmp_path).wireguard("vpn").read_text() == path.read_text()

"""Keys made on the box."""

import base64
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.host.wireguard import public_of
from appliance.queue.keys import public_of as curve_public
from appliance.supervisor.keys import KeyStore, next_name


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
    private = path.read_text().strip()
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private))
    assert public_of(private) == base64.b64encode(key.public_key().public_bytes_raw()).decode()
    assert KeyStore(tmp_path).wireguard("vpn").read_text() == path.read_text()


def announced(keys: Path) -> list[str]:
    return (keys / "queue-keys").read_text().splitlines()


def test_a_server_takes_the_key_that_was_announced_and_another_is_announced(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    keys.announce("queue")
    now, following = announced(tmp_path)
    assert keys.curve(["queue"])["queue"].public == now
    assert KeyStore(tmp_path).curve(["queue.next"])["queue.next"].public == following
    keys.rotate("queue")
    after = announced(tmp_path)
    assert after[0] == following == keys.curve(["queue"])["queue"].public
    assert after[1] not in (now, following)
    assert (tmp_path / "queue.next.secret").stat().st_mode & 0o777 == 0o600


def test_a_client_takes_the_key_that_it_was_told_and_is_told_another(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    now, following = (keys.curve([name])[name] for name in ("bridge", next_name("bridge")))
    keys.replace("bridge")
    assert keys.curve(["bridge"])["bridge"] == following != now
    assert keys.curve([next_name("bridge")])[next_name("bridge")] not in (now, following)


def test_a_rotation_that_a_power_cut_halved_is_completed(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    keys.announce("queue")
    _, following = announced(tmp_path)
    (tmp_path / "queue.next.secret").replace(tmp_path / "queue.secret")
    keys.announce("queue")
    assert announced(tmp_path)[0] == following != announced(tmp_path)[1]

"""Keys made on the box, once: a CURVE pair for every name on the queue, a WireGuard key for every VPN."""

import base64
from collections.abc import Iterable
from pathlib import Path

from zmq.utils import z85

from appliance.contracts.service import SERVER_KEYS_CREDENTIAL
from appliance.durable import place
from appliance.queue.keys import Keys, generate_keys, public_of


def next_name(name: str) -> str:
    """Return the name under which the key is kept that `name` will have one day."""
    return f"{name}.next"


class KeyStore:
    """Secrets in files that only root may read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, tuple[int, int, Keys]] = {}

    def curve(self, names: Iterable[str]) -> dict[str, Keys]:
        """Return the CURVE pair of each name, made where there is none yet."""
        return {name: self._curve(name) for name in names}

    def announce(self, server: str) -> None:
        """Write down, for the clients of a server, its public key and the one that it will take next."""
        keys = self.curve([server, next_name(server)])
        text = "\n".join(keys[name].public for name in (server, next_name(server)))
        path = self._directory / SERVER_KEYS_CREDENTIAL
        if not path.exists() or path.read_text(encoding="ascii") != text + "\n":
            self._write(path, text)

    def rotate(self, server: str) -> None:
        """Give a server its next key, which was announced before, and announce another."""
        self.announce(server)
        self._take_next(server)
        self.announce(server)

    def replace(self, client: str) -> None:
        """Give a client its next key, made before that too."""
        self.curve([next_name(client)])
        self._take_next(client)

    def _take_next(self, name: str) -> None:
        (self._directory / f"{next_name(name)}.secret").replace(self._directory / f"{name}.secret")

    def wireguard(self, name: str) -> Path:
        """Return the file with the WireGuard private key (base64) of that name, made where there is none yet."""
        path = self._directory / f"{name}.wireguard"
        if not path.exists():
            self._write(path, base64.b64encode(z85.decode(generate_keys().secret)).decode())
        return path

    def _curve(self, name: str) -> Keys:
        path = self._directory / f"{name}.secret"
        if not path.exists():
            self._write(path, generate_keys().secret)
        # Every key is a file of its own, put in place whole: another key is another file.
        status = path.stat()
        kept = self._read.get(path)
        if kept is None or kept[:2] != (status.st_ino, status.st_ctime_ns):
            secret = path.read_text(encoding="ascii").strip()
            kept = (status.st_ino, status.st_ctime_ns, Keys(public=public_of(secret), secret=secret))
            self._read[path] = kept
        return kept[2]

    def _write(self, path: Path, secret: str) -> None:
        """Whole and on disk, or not at all: half a key would lock a component out for good."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        place(path, f"{secret}\n".encode())

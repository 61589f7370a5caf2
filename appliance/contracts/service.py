"""The document each component process starts from: /run/alpha-ren/INSTANCE/service.json."""

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from appliance.errors import NOT_DECODED, InvalidInput

T = TypeVar("T")

SERVICE_FILE = "ALPHA_REN_SERVICE"
"""Environment variable with the path of the document."""

CURVE_CREDENTIAL = "curve-secret"
"""Name of the systemd credential (a file in $CREDENTIALS_DIRECTORY) with the instance's CURVE secret (Z85)."""

SERVER_KEYS_CREDENTIAL = "queue-keys"
"""Name of the credential with the broker's public keys (Z85), one a line: the one in use, then the one that comes next.

It is no part of the document, since a new key must not restart anybody but the broker.
"""


class Leg(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The addresses of one leg, without prefix length."""

    v4: str
    v6: str


class ServiceContext(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who this process is, where the queue is, and the settings its component's `spec.py` gave it.

    `next_key` is the public key that it will have one day, where other machines should list it before. `legs` are the
    addresses at which the others find it; `behind` are those of the machine it runs in, where that is a virtual one.
    """

    instance: str
    component: str
    machine: str
    lan: str
    cluster: str
    queue_endpoint: str
    public_key: str
    next_key: str = ""
    legs: dict[str, Leg]
    behind: Leg | None = None
    version: int = 1
    settings: msgspec.Raw = msgspec.Raw(b"{}")

    def own(self, network: str) -> Leg:
        """Return the addresses to listen on for who comes by the leg on `network`."""
        return self.behind or self.legs[network]

    def parse_settings(self, kind: type[T]) -> T:
        """Return the component's settings as `kind`; raise InvalidInput where they do not fit."""
        try:
            return msgspec.json.decode(self.settings, type=kind)
        except NOT_DECODED as error:
            raise InvalidInput(f"The settings of {self.instance} are not valid: {error}.") from error


def load() -> ServiceContext:
    """Return the context that the unit's environment points to, or raise InvalidInput."""
    path = Path(os.environ.get(SERVICE_FILE, "service.json"))
    try:
        return msgspec.json.decode(path.read_bytes(), type=ServiceContext)
    except (OSError, *NOT_DECODED) as error:
        raise InvalidInput(f"The service document {path} cannot be used: {error}.") from error


def credential(name: str) -> str:
    """Return the systemd credential `name` as text (systemd.exec(5)); raise InvalidInput where it is missing."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    try:
        return (Path(directory) / name).read_text(encoding="utf-8").strip()
    except OSError as error:
        hint = "It is handed over by the unit that the supervisor writes."
        raise InvalidInput(f"The credential {name} is missing: {error}.", hint=hint) from error


def server_keys() -> tuple[str, ...]:
    """Return the broker's public keys, the one in use first; raise InvalidInput where there are none."""
    keys = tuple(credential(SERVER_KEYS_CREDENTIAL).split())
    if not keys:
        raise InvalidInput(f"The credential {SERVER_KEYS_CREDENTIAL} is empty.", hint="The supervisor writes it.")
    return keys

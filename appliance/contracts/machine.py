"""What the supervisor says about its machine."""

from typing import Literal

import msgspec

UnitState = Literal["active", "activating", "reloading", "inactive", "failed", "deactivating", "unknown"]


class UnitStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One unit of one instance: systemd's state, how often it was restarted, since when (Unix time)."""

    name: str
    component: str
    instance: str
    state: UnitState
    restarts: int = 0
    since: float = 0.0
    memory_mb: float = 0.0


class Pairing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The pairing code and until when it holds (Unix time); only root on the box gets to see it."""

    code: str
    expires_at: float

    def __repr__(self) -> str:
        return "Pairing(…)"


class BootPhase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A phase of this boot and the seconds it took, in order."""

    name: str
    seconds: float


class MachineStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Event `machine`, reply to the call `supervisor.status` and content of `alpha-ren status --json`.

    `pairing` is filled only on the local socket. `step` is what the supervisor is doing now, `last_error` the newest
    problem in one sentence with its hint, both empty when there is nothing to say.
    """

    at: float
    name: str
    version: str
    profile: str
    ready: bool
    units: tuple[UnitStatus, ...]
    step: str = ""
    last_error: str = ""
    uplink: tuple[str, ...] = ()
    console_url: str = ""
    fingerprint: str = ""
    boot: tuple[BootPhase, ...] = ()
    config_in_force: str = "default"
    notes: tuple[str, ...] = ()
    pairing: Pairing | None = None

"""What the supervisor says about its machine, and how it is asked on the box.

The control socket is a ZeroMQ ROUTER at CONTROL_ENDPOINT, a Unix socket that only root can reach. A request is two
frames, the call's name and its JSON body (`{}` where it takes none); the reply is two frames, `ok` and the JSON body,
or `error` and a Problem. The calls and their bodies:

| call | body | reply |
|---|---|---|
| `status` | - | MachineStatus, with the pairing code while there is one |
| `plan` | - | Plan: what the next round would change |
| `firewall` | - | Firewall: every allowed flow |
| `apply` | ConfigText | Applied; InvalidConfig and ChangePending change nothing |
| `confirm` | Confirmation | Done: what was on trial stays |
| `revert` | Confirmation | Reverted |
| `guests` | - | Guests: the virtual machines, and why servers are none where they are not |
| `guest.pause`, `guest.resume` | GuestNamed | Done |
| `pairing.open` | - | Pairing: a person at the local console asks for a code |
| `queue.*`, `bridge.routes` | as in appliance.contracts.letters | the queue's reply to its call of that name |
| `queue.rotate-key` | Rotate | Rotated: the broker, or another instance, was restarted with its next key |
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from appliance.errors import Problem
from appliance.topology import FlowRule, MachineUse, Waits

CONTROL_SOCKET = "/run/alpha-ren/supervisor.sock"
CONTROL_ENDPOINT = f"ipc://{CONTROL_SOCKET}"

SEED_REFUSED = "/var/lib/alpha-ren/seed-refused.json"
"""Where first boot leaves a SeedRefusal for the supervisor to show; the file is gone once a good seed came."""

FINGERPRINT = "/var/lib/alpha-ren/identity/fingerprint"
"""The console certificate's SHA-256 fingerprint as browsers show it: hex pairs, upper case, with colons."""

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


class PendingChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A change that could cut its maker off: it is undone in `seconds_left` unless it is confirmed; what it touched."""

    digest: str
    touched: tuple[str, ...]
    seconds_left: float


class EndedChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What became of the last change that was on trial: whether it was kept, and in a sentence why."""

    digest: str
    kept: bool
    said: str


class InstanceUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all units of an instance use together, of what they may use (None: not counted, or not limited).

    `cpu_percent` is that of one processor; `oom_kills` counts the processes killed because its memory was used up.
    """

    instance: str
    cpu_percent: float | None = None
    memory_mb: float | None = None
    memory_max_mb: float | None = None
    tasks: int | None = None
    tasks_max: int | None = None
    oom_kills: int = 0
    waits: Waits = Waits()


class NicStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A network card with a role: its name on the host, its own MAC address, its driver and bus address (empty where
    the system does not tell), and its addresses in CIDR form where it is no uplink, whose are told apart.
    """

    name: str
    role: str
    mac: str
    driver: str = ""
    bus: str = ""
    addresses: tuple[str, ...] = ()


class Repair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Event `machine.repaired`: the machine was not as it should be, and these steps were taken.

    `cause` are the events that told of it, `took_s` the seconds from the first of them to the last step, `failed` what
    went wrong, in sentences; it is tried again.
    """

    at: float
    cause: str
    steps: tuple[str, ...]
    took_s: float
    failed: tuple[str, ...] = ()


class MachineStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Event `machine`, reply to the call `supervisor.status` and content of `alpha-ren status --json`.

    `pairing` is filled only on the local socket. `step` is what the supervisor is doing now (empty when it has nothing
    to do), `last_error` the newest problem that still holds, `warnings` what does not fit without stopping anything,
    `queue_key` the broker's public key (Z85), `ended` what
    became of the last change on trial, since the supervisor started and until another is made, `pending` a
    change that waits for its confirmation; `use` and `instances` are at most ten seconds old; `repairs` are the latest
    ones, the newest last.
    """

    at: float
    name: str
    version: str
    profile: str
    ready: bool
    units: tuple[UnitStatus, ...]
    step: str = ""
    last_error: Problem | None = None
    uplink: tuple[str, ...] = ()
    console_url: str = ""
    fingerprint: str = ""
    queue_key: str = ""
    boot: tuple[BootPhase, ...] = ()
    config_in_force: str = "default"
    notes: tuple[str, ...] = ()
    nics: tuple[NicStatus, ...] = ()
    warnings: tuple[Problem, ...] = ()
    ended: EndedChange | None = None
    pending: PendingChange | None = None
    use: MachineUse | None = None
    instances: tuple[InstanceUse, ...] = ()
    repairs: tuple[Repair, ...] = ()
    pairing: Pairing | None = None


class GuestStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A virtual machine: `away` is one whose emulator does not answer, `other` one that neither runs nor is paused."""

    instance: str
    state: Literal["running", "paused", "other", "away"]
    accelerator: str
    cpus: int
    memory_mb: int


class Guests(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The instances that are virtual machines now; `notes` say why others are none, or what still is to move."""

    guests: tuple[GuestStatus, ...] = ()
    notes: tuple[str, ...] = ()


class GuestNamed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which virtual machine is meant, by its instance."""

    instance: str


class SeedRefusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A configuration seed that was refused: where it came from, its SHA-256, when (Unix time), and why."""

    source: str
    digest: str
    at: float
    problem: Problem
    version: int = 1


class PlanStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step: what is done (`make`, `change`, `remove`, `start`…) to which kind of thing, by its name, and why."""

    action: str
    kind: str
    name: str
    why: str = ""


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The steps from what is to what should be, in the order in which they would be taken; none when all is well."""

    steps: tuple[PlanStep, ...] = ()


class Firewall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every flow that any namespace lets through; what is not in the table is dropped."""

    flows: tuple[FlowRule, ...] = ()


CONFIRM_WITHIN_S = 60.0

ConfirmWithin = Annotated[float, Meta(ge=5, le=900)]
"""Seconds that a change which could cut its maker off has to be confirmed in."""


class ConfigText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A configuration document to be put in force, as TOML; on trial where it could cut off whoever applies it."""

    text: str
    confirm_within_s: ConfirmWithin = CONFIRM_WITHIN_S


class Applied(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The configuration is in force: the SHA-256 of its text, the steps that were taken, and whether it is on trial."""

    digest: str
    steps: int
    pending: PendingChange | None = None


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which change stays, or does not: its digest, where empty means any; and who says so, for the journal.

    Body of the calls `supervisor.confirm` and `supervisor.revert` on the queue, too; they reply Done.
    """

    digest: str = ""
    who: Annotated[str, Meta(max_length=64)] = "root"


class Reverted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was in force before the change is so again; the steps that were taken."""

    steps: int


class Rotate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose key is to change: an instance's that is known on other machines; the broker's where it is empty."""

    instance: str = ""


class Rotated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The key is the one that was announced before; the steps that were taken."""

    steps: int

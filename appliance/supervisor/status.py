"""What the supervisor says about its machine."""

import logging
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from appliance import hwprofile
from appliance.contracts.machine import (
    FINGERPRINT,
    SEED_REFUSED,
    BootPhase,
    EndedChange,
    MachineStatus,
    NicStatus,
    Pairing,
    PendingChange,
    Repair,
    SeedRefusal,
    UnitState,
    UnitStatus,
)
from appliance.contracts.order import Health
from appliance.errors import NOT_DECODED, Problem
from appliance.hwprofile import HardwareProfile, InvalidProfile
from appliance.supervisor.gauges import Gauges
from appliance.supervisor.inforce import InForce
from appliance.topology import Machine, UnitFact

log = logging.getLogger(__name__)

RELEASE = Path("/usr/lib/os-release")
PROFILE = Path("/usr/share/alpha-ren/hwprofile.toml")

HEALTH_HOLDS_S = 60.0
"""How long a good word about the machine's health counts when no newer one comes."""

STATES: dict[str, UnitState] = {
    "active": "active",
    "activating": "activating",
    "reloading": "reloading",
    "inactive": "inactive",
    "failed": "failed",
    "deactivating": "deactivating",
}


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A word about the machine's health and when it came, on the monotonic clock: the wall clock may jump."""

    health: Health
    at: float


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine is: the version of its firmware and the hardware profile that it was built for."""

    version: str
    profile: str


def profile(path: Path = PROFILE) -> HardwareProfile | None:
    """Return the hardware profile in the image, None where there is none or it is not one (which the journal says)."""
    if not path.exists():
        return None
    try:
        return hwprofile.load(path)
    except InvalidProfile as error:
        log.error("%s", error)
        return None


def identity(profile: HardwareProfile | None, release: Path = RELEASE) -> Identity:
    """Return what the image says about itself, `unknown` where it does not."""
    version = "unknown"
    if release.exists():
        for line in release.read_text(encoding="utf-8").splitlines():
            if line.startswith("IMAGE_VERSION="):
                version = line.partition("=")[2].strip('"')
    return Identity(version=version, profile="unknown" if profile is None else profile.name)


def fingerprint(path: Path = Path(FINGERPRINT)) -> str:
    """Return the console certificate's fingerprint, empty while there is none."""
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def seed_problem(path: Path = Path(SEED_REFUSED)) -> Problem | None:
    """Return why the configuration seed was refused, or None where none was."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=SeedRefusal).problem
    except (FileNotFoundError, *NOT_DECODED):
        return None


def units(wanted: Machine, found: Iterable[UnitFact]) -> tuple[UnitStatus, ...]:
    """Return every declared process; a slice is none."""
    facts = {fact.name: fact for fact in found}
    rows = []
    for unit in wanted.units:
        if unit.name.endswith(".service"):
            fact = facts.get(unit.name) or UnitFact(name=unit.name, text="", state="inactive")
            rows.append(
                UnitStatus(
                    name=unit.name,
                    component=unit.component,
                    instance=unit.instance,
                    state=STATES.get(fact.state, "unknown"),
                    restarts=fact.restarts,
                    since=fact.since,
                    memory_mb=fact.memory_mb,
                )
            )
    return tuple(rows)


def is_ready(rows: Iterable[UnitStatus], health: Heard | None, now: float) -> bool:
    """Whether all declared units are active and the built-in journey worked lately; `now` is monotonic."""
    rows = tuple(rows)
    well = health is not None and health.health.ok and now - health.at < HEALTH_HOLDS_S
    return well and bool(rows) and all(row.state == "active" for row in rows)


def machine_status(
    *,
    who: Identity,
    in_force: InForce,
    rows: tuple[UnitStatus, ...],
    health: Heard | None,
    uplink: tuple[str, ...],
    outside_url: str,
    queue_key: str,
    boot: tuple[BootPhase, ...],
    step: str,
    problem: Problem | None,
    notes: tuple[str, ...],
    nics: tuple[NicStatus, ...] = (),
    warnings: tuple[Problem, ...] = (),
    gauges: Gauges | None = None,
    ended: EndedChange | None = None,
    pending: PendingChange | None = None,
    repairs: tuple[Repair, ...] = (),
    pairing: Pairing | None = None,
) -> MachineStatus:
    """Return the whole, as it is told everywhere."""
    return MachineStatus(
        at=time.time(),
        name=in_force.config.machine.name,
        version=who.version,
        profile=who.profile,
        units=rows,
        ready=is_ready(rows, health, time.monotonic()),
        step=step,
        last_error=problem or in_force.problem or seed_problem(),
        uplink=uplink,
        # Where the uplink has no address, operators still have their LAN.
        console_url=outside_url or _console_url(uplink) or _console_url(_of_operators(nics)),
        fingerprint=fingerprint(),
        queue_key=queue_key,
        boot=boot,
        config_in_force=in_force.source,
        notes=notes,
        nics=nics,
        warnings=warnings,
        ended=ended,
        pending=pending,
        use=gauges.machine if gauges else None,
        instances=gauges.instances if gauges else (),
        repairs=repairs,
        pairing=pairing,
    )


def _of_operators(nics: Iterable[NicStatus]) -> tuple[str, ...]:
    return tuple(address for nic in nics if nic.role == "management" for address in nic.addresses)


def _console_url(uplink: tuple[str, ...]) -> str:
    """Return where the console is, IPv4 before IPv6; empty without an address."""
    hosts = sorted((address.partition("/")[0] for address in uplink), key=lambda address: ":" in address)
    if not hosts:
        return ""
    return f"https://[{hosts[0]}]/" if ":" in hosts[0] else f"https://{hosts[0]}/"

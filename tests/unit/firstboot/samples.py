"""Machines as the local screen may meet them."""

import msgspec

from appliance.contracts.machine import BootPhase, MachineStatus, Pairing, PendingChange, UnitState, UnitStatus
from appliance.errors import Problem
from firstboot.view import Confirm, Log, Menu, QrCode, View

AT = 1_790_000_000.0

INSTANCES = (
    ("ardpx", ("ardpx", "ardpx-dhcpcd")),
    ("queue", ("queue",)),
    ("arclst", ("arclst",)),
    ("arhav", ("arhav",)),
    ("dns", ("dns",)),
    ("portal", ("portal",)),
    ("arwadm", ("arwadm-1",)),
    ("arsrv", ("arsrv-1",)),
    ("arsrv", ("arsrv-2",)),
    ("armail", ("armail",)),
    ("arvpn", ("arvpn",)),
)


def units(states: dict[str, UnitState] | None = None) -> tuple[UnitStatus, ...]:
    """Return the units of one small machine, all active but those named in `states`."""
    given = states or {}
    return tuple(
        UnitStatus(
            name=f"alpha-ren-{unit}.service",
            component=component,
            instance=names[0],
            state=given.get(unit, "active"),
        )
        for component, names in INSTANCES
        for unit in names
    )


READY = MachineStatus(
    at=AT,
    name="alpha-ren",
    version="2026.11.23",
    profile="qemu",
    ready=True,
    units=units(),
    uplink=("10.0.2.15/24", "fec0::5054:ff:fe12:3456/64"),
    console_url="https://localhost:8443/",
    fingerprint=":".join(f"{byte:02X}" for byte in range(0x41, 0x61)),
    boot=(
        BootPhase(name="firmware", seconds=5.1),
        BootPhase(name="kernel", seconds=7.9),
        BootPhase(name="userspace", seconds=4.2),
        BootPhase(name="components", seconds=9.6),
    ),
    pairing=Pairing(code="7K3M-9QXT", expires_at=AT + 700.0),
)

STARTING = MachineStatus(
    at=AT,
    name="alpha-ren",
    version="2026.11.23",
    profile="qemu",
    ready=False,
    units=units({"arclst": "activating", "arsrv-1": "inactive", "arsrv-2": "inactive", "portal": "activating"}),
    step="starting arclst",
    fingerprint=READY.fingerprint,
    pairing=READY.pairing,
)

FAILED = MachineStatus(
    at=AT,
    name="plant-7",
    version="2026.11.23",
    profile="qemu",
    ready=False,
    units=units({"arsrv-2": "failed"}),
    uplink=("192.0.2.7/24",),
    console_url="https://192.0.2.7/",
    fingerprint=READY.fingerprint,
    last_error=Problem(
        code="unit-failed",
        message="arsrv-2 ended five times within a minute and is not started again before somebody has looked at it.",
        hint="`alpha-ren logs arsrv-2` shows why; `alpha-ren status` what depends on it.",
    ),
)

LARGE = MachineStatus(
    at=AT,
    name="large",
    version="2026.11.23",
    profile="rack",
    ready=True,
    units=(
        *units()[:8],
        *(
            UnitStatus(
                name=f"alpha-ren-arsrv-{number}.service",
                component="arsrv",
                instance=f"arsrv-{number}",
                state="failed" if number in (17, 99) else "active",
            )
            for number in range(1, 201)
        ),
    ),
    uplink=("192.0.2.7/24",),
    console_url="https://192.0.2.7/",
    fingerprint=READY.fingerprint,
)

ON_TRIAL = msgspec.structs.replace(
    READY,
    pairing=None,
    uplink=("192.0.2.10/24",),
    console_url="https://192.0.2.10/",
    pending=PendingChange(
        digest="ab" * 32,
        touched=("route ardpx/default comes", "nic ardpx/uplink changes (addresses)"),
        seconds_left=42.4,
    ),
)

NO_CARD = Problem(
    code="nic-missing",
    message="The network card for the uplink (driver virtio_net) is not there: the machine has no way out.",
    hint="It is used as soon as it is plugged in.",
)
UNKNOWN_CARD = Problem(
    code="nic-unknown",
    message="The network card eth9 (e1000e 0000:00:01.0) has no role here and is left alone.",
    hint="The hardware profile of the firmware says which has one.",
)
NO_LAN_CARD = Problem(
    code="nic-missing",
    message="The network card for the management LAN (driver virtio_net, place 1) is not there.",
    hint="It is used as soon as it is plugged in.",
)
NO_LAN = msgspec.structs.replace(READY, warnings=(NO_LAN_CARD,))
NO_UPLINK = msgspec.structs.replace(READY, uplink=(), console_url="", warnings=(NO_CARD,))
TWO_WARNINGS = msgspec.structs.replace(NO_UPLINK, warnings=(NO_CARD, UNKNOWN_CARD))
FIVE_WARNINGS = msgspec.structs.replace(NO_UPLINK, warnings=(NO_CARD, *([UNKNOWN_CARD] * 4)))

AWAY = Problem(
    code="supervisor-away",
    message="The supervisor is not running.",
    hint="It is started again by itself; `alpha-ren logs supervisor` shows why it stopped.",
)

SCREENS: dict[str, View] = {
    "booting": View(version="2026.11.23", away=AWAY),
    "starting": View(status=STARTING, heard_at=AT),
    "ready": View(status=READY, heard_at=AT),
    "failed": View(status=FAILED, heard_at=AT),
    "away": View(status=READY, heard_at=AT, away=AWAY),
    "on-trial": View(status=ON_TRIAL, heard_at=AT),
    "no-card": View(status=NO_UPLINK, heard_at=AT),
    "no-lan-card": View(status=NO_LAN, heard_at=AT),
    "two-warnings": View(status=TWO_WARNINGS, heard_at=AT),
    "five-warnings": View(status=FIVE_WARNINGS, heard_at=AT),
    "large": View(status=LARGE, heard_at=AT),
    "menu": View(status=READY, heard_at=AT, panel=Menu(1)),
    "confirm": View(status=READY, heard_at=AT, panel=Confirm("power-off")),
    "qr": View(status=READY, heard_at=AT, panel=QrCode()),
    "log": View(
        status=READY,
        heard_at=AT,
        panel=Log(tuple(f"Nov 23 18:00:{second:02} queue[71]: message {second} \x1b[2J" for second in range(40)), True),
    ),
}

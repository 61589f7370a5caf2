"""What is used, and for how long work waits for it: of the machine, and of each control group.

From psutil and the kernel's files (cgroup-v2.rst and psi.rst of its documentation). What the kernel does not count
here, as in a container on control groups of version 1, is None.
"""

import os
from pathlib import Path

import msgspec
import psutil

from appliance.topology import MachineUse, Waits

CGROUPS = Path("/sys/fs/cgroup")
PRESSURE = Path("/proc/pressure")


class GroupUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a control group uses of what it may use. `oom_kills` counts processes killed for want of memory in it."""

    cpu_s: float | None = None
    memory_mb: float | None = None
    memory_max_mb: float | None = None
    tasks: int | None = None
    tasks_max: int | None = None
    oom_kills: int = 0
    waits: Waits = Waits()


def machine_use(pressure: Path = PRESSURE) -> MachineUse:
    """Return what the machine uses now, and since the last call of the processors."""
    memory = psutil.virtual_memory()
    return MachineUse(
        cpus=psutil.cpu_count() or 1,
        load=round(os.getloadavg()[0], 2),
        cpu_percent=psutil.cpu_percent(),
        memory_mb=round((memory.total - memory.available) / 2**20, 1),
        memory_total_mb=round(memory.total / 2**20, 1),
        waits=Waits(**{name: _some(_text(pressure / name)) for name in Waits.__struct_fields__}),
    )


def group_use(slice_name: str, root: Path = CGROUPS) -> GroupUse:
    """Return what a slice uses now; nothing where it is not there."""
    folder = root / slice_path(slice_name)
    return GroupUse(
        cpu_s=_scaled(_field(_text(folder / "cpu.stat"), "usage_usec"), 1e6),
        memory_mb=_scaled(_text(folder / "memory.current"), 2**20),
        memory_max_mb=_scaled(_text(folder / "memory.max"), 2**20),
        tasks=_number(_text(folder / "pids.current")),
        tasks_max=_number(_text(folder / "pids.max")),
        oom_kills=_number(_field(_text(folder / "memory.events"), "oom_kill")) or 0,
        waits=Waits(**{name: _some(_text(folder / f"{name}.pressure")) for name in Waits.__struct_fields__}),
    )


def slice_path(name: str) -> str:
    """Return the folder of a slice: each dash in its name is a step down (systemd.slice(5))."""
    parts = name.removesuffix(".slice").split("-")
    return "/".join(f"{'-'.join(parts[:count])}.slice" for count in range(1, len(parts) + 1))


def _text(path: Path) -> str:
    try:
        # Thousands of files at two hundred instances: without a buffer and a decoder each costs half.
        with open(path, "rb", buffering=0) as file:
            return file.read().decode("ascii")
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    return next((line.partition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")), "")


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _scaled(text: str, unit: float) -> float | None:
    number = _number(text)
    return None if number is None else round(number / unit, 3 if unit == 1e6 else 1)


def _some(text: str) -> float | None:
    words = _field(text, "some").split()
    return float(words[0].removeprefix("avg10=")) if words else None

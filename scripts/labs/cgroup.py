"""The control groups of a lab: one for its keeper, one for each machine, removed with everything in them.

Where systemd is PID 1 the watcher runs in a scope with `Delegate=yes`, so the groups are below that scope, as systemd's
delegation rules ask (https://systemd.io/CGROUP_DELEGATION). Elsewhere they are below `/alpha-ren-lab`. Only the unified
hierarchy is used, also on a host that keeps its controllers on version 1.
"""

import contextlib
import os
import select
import time
from pathlib import Path

from scripts.labs.errors import LabError, Missing

FOLDER = "alpha-ren-lab"
EMPTY_S = 10.0
SYSTEMD_RUNS = Path("/run/systemd/system")
"""Exists exactly where systemd is PID 1 (sd_booted(3))."""


def unified_root(mountinfo: str) -> Path:
    """Return where the unified hierarchy is mounted, from the text of /proc/self/mountinfo; raise Missing."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    raise Missing(
        "The cgroup2 hierarchy is not mounted.",
        hint="Mount it: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`.",
    )


def own_group(membership: str) -> str:
    """Return the calling process's unified group, from the text of /proc/self/cgroup."""
    return next(line.removeprefix("0::") for line in membership.splitlines() if line.startswith("0::"))


def base(lab: str) -> Path:
    """Return the folder of the lab's groups; the caller is the lab's watcher."""
    root = unified_root(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    if SYSTEMD_RUNS.exists():
        own = own_group(Path("/proc/self/cgroup").read_text(encoding="utf-8")).lstrip("/")
        return root / own.removesuffix("/watcher")
    return root / FOLDER / lab


def enter(group: Path) -> None:
    """Make `group` where it is missing, and move the calling process into it."""
    while True:
        try:
            group.mkdir(parents=True, exist_ok=True)
            break
        except FileNotFoundError:
            continue  # the last lab before this one removed the folder that all share, just now
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def share_controllers(group: Path) -> None:
    """Offer the controllers that `group` has to its children, so that limits inside the machines bite."""
    for controller in (group / "cgroup.controllers").read_text(encoding="ascii").split():
        with contextlib.suppress(OSError):  # a controller that its parent holds back is no reason to have no lab
            (group / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")


def _await_empty(group: Path) -> None:
    until = time.monotonic() + EMPTY_S
    with open(group / "cgroup.events", encoding="ascii") as events:
        changes = select.poll()
        changes.register(events, select.POLLPRI)  # the kernel's word for a change of this file (cgroups(7))
        while "populated 1" in events.read():
            left = until - time.monotonic()
            if left <= 0 or not changes.poll(left * 1000):
                raise LabError(f"Processes in the control group {group} did not end within {EMPTY_S:.0f} s.")
            events.seek(0)


def remove(group: Path) -> None:
    """Remove `group` and all below it; their processes have ended, or are ending because the lab was killed."""
    if not group.is_dir():
        return
    _await_empty(group)
    for folder, _, _ in os.walk(group, topdown=False):
        os.rmdir(folder)
    if group.parent.name == FOLDER:
        with contextlib.suppress(OSError):  # not empty: other labs are up
            group.parent.rmdir()

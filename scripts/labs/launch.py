"""Start a lab: check that this computer can hold one, and hand the plan to a watcher process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

import msgspec

from appliance.errors import Relayed
from scripts.labs import cgroup, control, keeper
from scripts.labs.errors import LabError, Missing, NoTree
from scripts.labs.topology import Topology

WORKING_COPY = Path(__file__).resolve().parents[2]
DEFAULT_TREE = WORKING_COPY / "build" / "tree" / "qemu"
NEEDED = {
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "mkfs.erofs": "erofs-utils",
    "systemd-nspawn": "systemd-container",
}
"""Commands the lab calls, and Debian's packages that have them."""


def log_of(name: str) -> Path:
    """Return where a lab that nobody watches says why it ended; nowhere, where the working copy is read-only."""
    folder = WORKING_COPY / "build" / "log"
    return folder / f"lab-{name}.log" if os.access(folder, os.W_OK) else Path(os.devnull)


def tree_at(path: Path) -> Path:
    """Return the firmware's tree at `path`, links resolved, since a new build moves the link; raise NoTree."""
    tree = path.resolve()
    if not (tree / "usr" / "lib" / "os-release").is_file():
        raise NoTree(f"There is no firmware tree at {path}.")
    return tree


def check_computer() -> None:
    """Raise Missing where the lab cannot run here."""
    if os.geteuid() != 0:
        raise Missing("A lab needs root: it makes namespaces.", hint="Run it with sudo.")
    lacking = sorted(package for command, package in NEEDED.items() if shutil.which(command) is None)
    if lacking:
        raise Missing(f"This computer lacks {', '.join(lacking)}.")
    if not Path("/dev/net/tun").exists():
        raise Missing("/dev/net/tun is missing.", hint="Load its module: `modprobe tun`.")


def watcher_command(name: str) -> list[str]:
    """Return how the watcher is started: in a scope of its own where systemd is PID 1."""
    command = [sys.executable, "-P", "-m", "scripts.labs.watcher"]
    if cgroup.SYSTEMD_RUNS.exists():
        scope = [
            "systemd-run", "--quiet", "--scope", "--collect", "--property=Delegate=yes",
            f"--unit={cgroup.FOLDER}-{name}", "--",
        ]  # fmt: skip
        return scope + command
    return command


def start(
    name: str, topology: Topology, tree: Path, *, leashed: bool, log: IO[bytes] | int | None
) -> subprocess.Popen[bytes]:
    """Start the lab and return its watcher process once the lab is set up; raise what it says otherwise.

    A leashed lab ends when the returned process's standard input is closed, be it by the end of this process; another
    goes on by itself. What goes wrong later is written to `log`.
    """
    check_computer()
    plan = keeper.Plan(
        name=name, topology=topology, tree=str(tree_at(tree)), working_copy=str(WORKING_COPY), leashed=leashed
    )
    process = subprocess.Popen(
        watcher_command(name),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=WORKING_COPY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(WORKING_COPY), *_inherited_path()])},
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(plan) + b"\n")
    process.stdin.flush()
    if not leashed:
        process.stdin.close()
    answer = process.stdout.readline()
    process.stdout.close()
    if not answer:
        status = process.wait()
        raise LabError(f"The lab `{name}` ended with status {status} before it was set up.")
    problem = msgspec.json.decode(answer, type=control.Reply).problem
    if problem is not None:
        process.wait()
        raise Relayed(problem)
    return process


def _inherited_path() -> list[str]:
    return [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]

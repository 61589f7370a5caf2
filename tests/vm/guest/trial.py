"""Run the lab on this computer, a stock Debian 13, and say how it went: one line of JSON after `TRIAL `.

`test_lab_in_stock_guest.py` starts it by the kernel command line; repository and firmware tree are mounted read-only.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY))

from scripts.labs import control, state  # noqa: E402 - after the path is set

LAB = "trial"
LIMIT_S = 600


def lab(*words: str) -> subprocess.CompletedProcess[str]:
    """Call scripts/lab."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "lab"), *words],
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def up(tree: str) -> subprocess.CompletedProcess[str]:
    """Start the lab."""
    return lab("up", "--name", LAB, "--tree", tree, str(Path(__file__).with_name("trial.toml")))


def inside(*argv: str) -> str:
    """Return what a command in the box says."""
    ran = lab("exec", "--name", LAB, "box", "--", *argv)
    return (ran.stdout + ran.stderr).strip()


def leftovers() -> Iterator[str]:
    """Yield what is left of the lab on this computer."""
    if state.ROOT.exists():
        yield str(state.ROOT)
    yield from (str(path) for path in Path("/sys/fs/cgroup").rglob("*alpha-ren-lab*"))
    if LAB in Path("/proc/self/mountinfo").read_text(encoding="utf-8"):
        yield "a mount"
    links = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout
    yield from (
        f"link {link['ifname']}" for link in json.loads(links) if re.fullmatch(r"(lan|[mh]\d+n)\d+", link["ifname"])
    )
    for process in Path("/proc").glob("[0-9]*/comm"):
        try:
            if process.read_text(encoding="utf-8").strip() in ("systemd-nspawn", "dnsmasq"):
                yield str(process)
        except (FileNotFoundError, ProcessLookupError):
            continue


def children(pid: int) -> list[int]:
    """Return the PIDs of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def kill_watcher_and_keeper() -> None:
    """Kill the lab as roughly as can be, and wait for the last of the two to be gone."""
    watcher = control.view(LAB).watcher
    victims = [watcher, *children(watcher)]
    handles = [os.pidfd_open(pid) for pid in victims]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    for handle in handles:
        select.select([handle], [], [], LIMIT_S)
        os.close(handle)


def main(tree: str) -> dict[str, object]:
    """Return what was seen."""
    seen: dict[str, object] = {
        "first_process": Path("/proc/1/comm").read_text(encoding="ascii").strip(),
        "cgroup": subprocess.run(
            ["stat", "--file-system", "--format=%T", "/sys/fs/cgroup"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "before": list(leftovers()),
    }
    started = up(tree)
    seen["up"] = [started.returncode, started.stdout + started.stderr]
    seen["running"] = inside("systemctl", "is-system-running")
    seen["controllers"] = inside("cat", "/sys/fs/cgroup/cgroup.controllers")
    seen["outside"] = lab("exec", "--name", LAB, "outside", "--", "hostname").stdout.strip()
    stopped = lab("down", "--name", LAB)
    seen["down"] = [stopped.returncode, stopped.stderr]
    seen["after_down"] = list(leftovers())
    again = up(tree)
    seen["up_again"] = [again.returncode, again.stderr]
    if again.returncode == 0:
        kill_watcher_and_keeper()
    seen["ls"] = lab("ls").stdout
    seen["after_kill"] = list(leftovers())
    return seen


if __name__ == "__main__":
    print("TRIAL " + json.dumps(main(sys.argv[1])), flush=True)

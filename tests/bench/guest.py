"""How long an ARSRV that is a virtual machine takes from its start to its first heartbeat, phase by phase, in seconds.

The guest is started anew by its unit, on a box of the lab that does nothing else; where KVM runs guests it has that,
else it is emulated, which is said.
"""

import json
import re
from statistics import median
from typing import Any

import msgspec

from appliance import config
from scripts.labs import topology
from tests.bench.measure import Measure
from tests.lab.box import Box, started
from tests.lab.systems import wait_until

SERVER = "arsrv-1"
UNIT = f"alpha-ren-{SERVER}-vm.service"
WATCHER = "alpha-ren-arhav.service"
WITHIN_S = 180.0

SERVES = re.compile(r"serves after ([\d.]+) s, ([\d.]+) s of them since its kernel began")
BOOTED = re.compile(r"Startup finished in ([\d.]+)s \(kernel\) \+ ([\d.]+)s \(userspace\)")
HEARTBEAT = f"{SERVER} is up"

HOW = (
    "guest: one ARSRV of 256 MB on one processor ({accelerator}), from `systemctl restart` of its unit until ARHAV has "
    "had an answer to a ping; nothing else runs. keeper: its Python process until QEMU is started; emulator: until the "
    "guest's kernel begins; kernel: it, the initrd and /usr, until systemd; server: systemd, the imports, until it "
    "listens; heartbeat: joined, and pinged. median of {runs}."
)


def measures(quick: bool) -> list[Measure]:
    """The seconds from start to first heartbeat; the details are its phases."""
    runs = 1 if quick else 5
    plain = topology.default()
    [machine] = plain.machine
    plan = msgspec.structs.replace(plain, machine=(msgspec.structs.replace(machine, guests=True),))
    settings = config.Config(arsrv=config.Arsrv(count=1, isolation="vm"))
    with started(settings, plan=plan, set_up=False) as box:
        guests = json.loads(box.machine.run(["alpha-ren", "guest", "--json"]).stdout)["guests"]
        taken = [_start(box) for _ in range(runs)]
    phases = {name: round(median(each[name] for each in taken), 2) for name in taken[0]}
    return [
        Measure(
            measure="guest",
            unit="s",
            ours=round(median(sum(each.values()) for each in taken), 2),
            better="lower",
            details=phases,
            how=HOW.format(accelerator=guests[0]["accelerator"], runs=runs),
        )
    ]


def _start(box: Box) -> dict[str, float]:
    """Start the guest anew and return how long each phase took."""
    cursor = box.machine.run(["journalctl", "-n", "0", "--show-cursor"]).stdout.rpartition("-- cursor: ")[2].strip()
    box.machine.run(["systemctl", "restart", UNIT], deadline_s=WITHIN_S)
    wait_until("its first heartbeat", lambda: bool(_entries(box, cursor, WATCHER, HEARTBEAT)), WITHIN_S)
    began_s = int(box.machine.run(["systemctl", "show", "-P", "ExecMainStartTimestampMonotonic", UNIT]).stdout) / 1e6
    [serves] = _entries(box, cursor, UNIT, "serves after")
    [booted] = _entries(box, cursor, UNIT, "Startup finished in")
    heartbeat = _entries(box, cursor, WATCHER, HEARTBEAT)[0]
    took_s, since_kernel_s = (float(text) for text in _found(SERVES, serves))
    kernel_s, _ = (float(text) for text in _found(BOOTED, booted))
    return {
        "keeper": _at_s(serves) - took_s - began_s,
        "emulator": took_s - since_kernel_s,
        "kernel": kernel_s,
        "server": since_kernel_s - kernel_s,
        "heartbeat": _at_s(heartbeat) - _at_s(serves),
    }


def _entries(box: Box, cursor: str, unit: str, text: str) -> list[dict[str, Any]]:
    """Return the journal's entries of a unit since a place in it that have a text in them."""
    argv = ["journalctl", "-u", unit, "-o", "json", f"--after-cursor={cursor}"]
    entries = [json.loads(line) for line in box.machine.run(argv).stdout.splitlines()]
    return [entry for entry in entries if text in entry["MESSAGE"]]


def _at_s(entry: dict[str, Any]) -> float:
    return int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6


def _found(pattern: re.Pattern[str], entry: dict[str, Any]) -> tuple[str, ...]:
    match = pattern.search(entry["MESSAGE"])
    if match is None:
        raise RuntimeError(f"not understood: {entry['MESSAGE']}")
    return match.groups()

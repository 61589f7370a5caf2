"""How long the firmware takes from power-on until it does its work, phase by phase, in seconds.

The first boot of a new machine makes keys and file systems and restarts once, so it is run before, and the second is
what counts; the first one's total is among the details.
"""

import subprocess
import tempfile
from pathlib import Path

import msgspec

from scripts.virtual.session import Report
from tests.bench.measure import Measure

_RUN = Path(__file__).resolve().parents[2] / "scripts" / "run"
_RUN_DEADLINE_S = 1500.0


def measure() -> Measure:
    """The seconds from power-on to ready of a machine that was set up before; the details are its phases."""
    with tempfile.TemporaryDirectory(prefix="alpha-ren-boot-") as state:
        first = _until_ready(Path(state))
        second = _until_ready(Path(state))
    phases = {name: seconds for name, seconds in second.boot_s.items() if name != "total"}
    return Measure(
        measure="boot",
        unit="s",
        ours=second.boot_s["total"],
        better="lower",
        details={**phases, f"first boot ({first.accelerator})": first.boot_s["total"]},
    )


def _until_ready(state: Path) -> Report:
    """One run of `scripts/run --until-ready`; its progress goes to this process's standard error."""
    command = [str(_RUN), "--until-ready", "--state", str(state)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_RUN_DEADLINE_S, check=True)
    return msgspec.json.decode(done.stdout, type=Report)

"""The supervisor's own process on a throwaway host with so many ARSRVs, a stand-in for systemd, and control groups
that are files.
"""

import asyncio
import compileall
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import appliance
from appliance.component import RUN, STATE
from appliance.contracts.machine import MachineStatus, Plan
from appliance.host.pressure import CGROUPS, slice_path
from appliance.supervisor.ask import SupervisorAway, ask
from appliance.supervisor.desired import Facts, desired
from appliance.supervisor.gauges import slices
from appliance.supervisor.registry import specs
from firstboot import identity
from scripts.labs import kernel
from tests.bench.hosts import machines

UP_WITHIN_S = 300.0
STOPS_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 60.0
LOG = Path("/tmp/supervisor.log")
BOX = Path("/tmp/box")

WAITS = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234567\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1234567\n"
GROUP = {
    "cpu.stat": "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\nnr_periods 0\nnr_throttled 0\n",
    "memory.current": "52428800\n",
    "memory.max": "134217728\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    "pids.current": "3\n",
    "pids.max": "64\n",
    "cpu.pressure": WAITS,
    "memory.pressure": WAITS,
    "io.pressure": WAITS,
}


@contextmanager
def surroundings(servers: int) -> Iterator[None]:
    """Give a machine with so many ARSRVs what it needs around it."""
    kernel.mount("tmpfs", "/sys", "tmpfs")
    asked = machines.config(servers)
    machine = desired(asked, specs(asked), Facts(public_keys=machines.Keys())).machine
    for name in slices(machine).values():
        folder = CGROUPS / slice_path(name)
        folder.mkdir(parents=True)
        for file, text in GROUP.items():
            (folder / file).write_text(text)
    Path(RUN).mkdir(parents=True, exist_ok=True)
    Path(STATE).mkdir(parents=True, exist_ok=True)
    identity.ensure(Path(STATE), ("bench",), now=time.time(), machine_id="0" * 32)
    (Path(STATE) / "config.toml").write_text(f"version = 1\n\n[arsrv]\ncount = {servers}\n")
    with subprocess.Popen([sys.executable, "-m", "tests.system_bus"], stdout=subprocess.PIPE) as stand_in:
        try:
            assert stand_in.stdout is not None
            assert stand_in.stdout.readline() == b"ready\n"
            yield
        finally:
            stand_in.kill()


@contextmanager
def supervisor() -> Iterator[int]:
    """Start it, wait until it finds nothing more to do, and give its process id."""
    # Compiled beforehand, as it is on the box: a process that compiles is larger ever after.
    if not BOX.exists():
        shutil.copytree(Path(appliance.__file__).parent, BOX / "appliance")
        compileall.compile_dir(BOX, quiet=1)
    environment = {**os.environ, "PYTHONPATH": str(BOX)}
    with (
        LOG.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "appliance.supervisor"], cwd=BOX, env=environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            asyncio.run(_settled(process))
            yield process.pid
        finally:
            process.terminate()
            process.wait(STOPS_WITHIN_S)


async def status() -> MachineStatus:
    """Ask it how the machine is."""
    return await ask("status", MachineStatus, deadline_s=ANSWERS_WITHIN_S)


async def plan() -> Plan:
    """Let it look at everything."""
    return await ask("plan", Plan, deadline_s=UP_WITHIN_S)


async def _settled(process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if not (await plan()).steps:
                return
        except SupervisorAway:
            await asyncio.sleep(0.1)
    said = await asyncio.to_thread(LOG.read_text)
    raise RuntimeError(f"The machine did not get there: {said[-2000:]}")

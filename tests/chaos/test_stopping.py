"""A run that is stopped on its way says so and leaves nothing behind; one that is killed leaves nobody."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.layer import REPOSITORY, RUN, swept

STARTED_WITHIN_S = STOPPED_WITHIN_S = 60.0
INTERRUPTED = 130


class Running:
    """A run in a session of its own, as at a terminal; its temporary files are below `place`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        seed = report.fresh_seed()
        self.kept = report.KEPT / seed
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos", "--seed", seed, "--duration", "60"], cwd=REPOSITORY,
            env=os.environ | {"TMPDIR": str(place)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + STARTED_WITHIN_S
        while not (self.kept / "b-consumer-0.jsonl").exists():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end, "it does not start"
            time.sleep(0.02)

    def processes(self) -> list[str]:
        """The commands that it has started, or those have."""
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"TMPDIR={self.place}\0".encode() in environment.read_bytes():
                    found.append((environment.parent / "cmdline").read_text())
            except OSError:
                continue  # it has ended
        return found

    def mounts(self) -> list[str]:
        """What is mounted below its place."""
        return [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"{self.place}/" in line]


@pytest.fixture
def running() -> Iterator[Running]:
    place = Path(tempfile.mkdtemp(prefix=RUN))
    run = Running(place)
    yield run
    run.process.kill()
    run.process.communicate()
    shutil.rmtree(run.kept, ignore_errors=True)
    shutil.rmtree(place)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_run_that_is_stopped_leaves_nothing(running: Running, number: signal.Signals) -> None:
    assert len(running.processes()) > 10
    assert len(running.mounts()) == 2
    os.killpg(running.process.pid, number)
    _, said = running.process.communicate(timeout=STOPPED_WITHIN_S)
    assert (running.process.returncode, said) == (
        INTERRUPTED,
        "Stopped before its end: nothing was judged, and nothing is left of it.\n",
    )
    assert (running.processes(), running.mounts(), os.listdir(running.place)) == ([], [], [])
    assert not running.kept.exists()


def test_nobody_outlives_a_run_that_is_killed(running: Running) -> None:
    running.process.kill()
    end = time.monotonic() + STOPPED_WITHIN_S
    while running.processes():
        assert time.monotonic() < end, running.processes()
        time.sleep(0.02)
    mounts = {line.split()[1] for line in running.mounts()}
    assert len(mounts) == 2
    found: set[str] = set()
    while running.mounts():  # a process lets go of its descriptors last
        assert time.monotonic() < end, running.mounts()
        found |= {str(mount) for mount in swept()}
        time.sleep(0.02)
    assert found >= mounts

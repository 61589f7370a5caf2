"""Counts how often a system syncs, with strace(1), which slows down what it looks at: never while a rate is taken."""

import contextlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.peers import processes

STRACE = ("strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-e", "signal=none")
TRACE = "/tmp/syncs"
SYNC = re.compile(rb"^(?:\d+ +)?(?:fsync|fdatasync|sync_file_range|msync)\(", re.MULTILINE)
ATTACHED_WITHIN_S = 30.0


def available() -> bool:
    """Whether there is an strace, which comes with the peers."""
    return shutil.which(STRACE[0]) is not None


def found() -> int:
    """Return how many syncs there were."""
    return len(SYNC.findall(Path(TRACE).read_bytes()))


@contextlib.contextmanager
def attached(roots: list[int]) -> Iterator[None]:
    """Count the syncs of these processes and of all below them."""
    pids = {pid for root in roots for pid in processes.tree(root)}
    chosen = [option for pid in sorted(pids) for option in ("-p", str(pid))]
    tracer = subprocess.Popen([*STRACE, "-o", TRACE, *chosen])
    until = time.monotonic() + ATTACHED_WITHIN_S
    while not all(_traced(pid) for pid in pids):
        if time.monotonic() > until or tracer.poll() is not None:
            raise RuntimeError("strace did not attach")
        time.sleep(0.02)
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(ATTACHED_WITHIN_S)


def _traced(pid: int) -> bool:
    """Whether every thread of the process is traced (proc_pid_status(5)); one that has ended is no matter."""
    with contextlib.suppress(FileNotFoundError):
        return all("TracerPid:\t0\n" not in status.read_text() for status in Path(f"/proc/{pid}/task").glob("*/status"))
    return True

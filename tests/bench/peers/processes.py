"""What /proc tells of a process and of all that it started: processor time and memory."""

import os
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """Return the process and its descendants."""
    children: dict[int, list[int]] = {}
    for pid, fields in _stats():
        children.setdefault(int(fields[1]), []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_s(roots: list[int]) -> float:
    """Return the processor's seconds that the processes below these have used, ended children included."""
    wanted = {pid for root in roots for pid in tree(root)}
    return sum(sum(map(int, fields[11:15])) for pid, fields in _stats() if pid in wanted) / TICKS


def resident_mb(roots: list[int]) -> float:
    """Return the sum of their resident memory in megabytes."""
    total = 0
    for pid in {pid for root in roots for pid in tree(root)}:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total * 1024 / 1e6


def peak_mb(pid: int) -> float:
    """Return the most resident memory that a process ever had, in megabytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Yield each process and what its `stat` says after the name (proc_pid_stat(5), from field 3 on)."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield int(entry.parent.name), text.rpartition(")")[2].split()

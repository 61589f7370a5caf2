"""What a lab is made of, as seen from this computer, so that a test can tell that all of it is gone."""

import os
import select
from pathlib import Path
from typing import NamedTuple

from scripts.labs import cgroup, control, state
from scripts.labs.session import Lab

GONE_S = 30.0


class Makings(NamedTuple):
    """A running lab's processes (as pidfds), network namespaces and control groups."""

    name: str
    watcher: int
    keeper: int
    pidfds: tuple[int, ...]
    networks: frozenset[str]
    group: Path


def children(pid: int) -> list[int]:
    """Return the PIDs of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def descendants(pid: int) -> list[int]:
    """Return the PIDs of everything below a process."""
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]


def makings(name: str) -> Makings:
    """Return what the lab called `name` consists of right now."""
    watcher = control.view(name).watcher
    pids = [watcher, *descendants(watcher)]
    networks = {os.readlink(f"/proc/{pid}/ns/net") for pid in pids} - {os.readlink("/proc/self/ns/net")}
    root = cgroup.unified_root(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    return Makings(
        name=name,
        watcher=watcher,
        keeper=children(watcher)[0],
        pidfds=tuple(os.pidfd_open(pid) for pid in pids),
        networks=frozenset(networks),
        group=root / cgroup.FOLDER / name,
    )


def assert_processes_end(lab: Makings) -> None:
    """Wait until every process of the lab has ended."""
    for pidfd in lab.pidfds:
        assert select.select([pidfd], [], [], GONE_S)[0], f"a process of the lab {lab.name} still runs"
        os.close(pidfd)


def assert_nothing_is_left(lab: Makings) -> None:
    """Assert that no namespace, mount, link, control group or file of the lab is left."""
    assert not state.folder(lab.name).exists()
    assert not lab.group.exists()
    assert lab.name not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert networks_in_use().isdisjoint(lab.networks)


def networks_in_use() -> set[str]:
    """Return the network namespaces of every process on this computer."""
    found = set()
    for process in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(os.readlink(process))
        except FileNotFoundError:
            continue  # it ended meanwhile
    return found


def of(lab: Lab) -> Makings:
    """Return the makings of a test's lab."""
    return makings(lab.name)

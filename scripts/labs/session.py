"""A lab as a test uses it: `with Lab(plan) as lab: lab.machine("box").run(["systemctl", "is-system-running"])`.

The lab ends with the `with` block, and also when this process is killed.
"""

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from scripts.labs import journal, launch, state, topology
from scripts.labs.errors import LabError
from scripts.labs.place import Host, Machine

TEST_LOGS = launch.WORKING_COPY / "build" / "test-logs"


class Lab:
    """A lab that lives as long as its `with` block; `name` is made up where none is given."""

    _count: ClassVar[int] = 0
    _open: ClassVar[list["Lab"]] = []

    def __init__(
        self, plan: topology.Topology | None = None, *, name: str | None = None, tree: Path = launch.DEFAULT_TREE
    ) -> None:
        Lab._count += 1
        self.topology = plan or topology.default()
        topology.check(self.topology)
        self.name = name or f"test-{os.getpid()}-{Lab._count}"
        self._tree = tree
        self._watcher: subprocess.Popen[bytes] | None = None

    @classmethod
    def all_open(cls) -> tuple["Lab", ...]:
        """Return the labs that this process has open."""
        return tuple(cls._open)

    def __enter__(self) -> Self:
        self._watcher = launch.start(self.name, self.topology, self._tree, leashed=True, log=None)
        Lab._open.append(self)
        try:
            for machine in self.topology.machine:
                if machine.start:
                    self.machine(machine.name).wait_running()
        except BaseException as error:
            self._say_where(error, "setup")
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._say_where(error, "failure")
        self.close()

    def _say_where(self, error: BaseException, occasion: str) -> None:
        for path in self.save_logs(occasion):
            error.add_note(f"Saved: {path}")

    def close(self) -> None:
        """End the lab and wait until nothing is left of it."""
        if self in Lab._open:
            Lab._open.remove(self)
        if self._watcher is None:
            return
        assert self._watcher.stdin is not None, "a leashed watcher has a leash"
        self._watcher.stdin.close()
        status = self._watcher.wait(timeout=30)
        self._watcher = None
        if status:
            raise LabError(f"The lab `{self.name}` had ended by itself, with status {status}.")

    def machine(self, name: str) -> Machine:
        """Return the machine called `name`."""
        if name not in [machine.name for machine in self.topology.machine]:
            raise LabError(f"The topology has no machine `{name}`.")
        return Machine(self.name, self.topology, name)

    def host(self, name: str) -> Host:
        """Return the outside host called `name`."""
        if name not in [host.name for host in self.topology.host]:
            raise LabError(f"The topology has no host `{name}`.")
        return Host(self.name, self.topology, name)

    def save_logs(self, occasion: str) -> list[Path]:
        """Write journal and console of every machine to build/test-logs; return the paths."""
        saved = []
        for machine in self.topology.machine:
            saved += journal.save(self.name, machine.name, TEST_LOGS / f"{occasion}-{self.name}-{machine.name}")
        lan_log = state.folder(self.name) / state.LAN_LOG
        if lan_log.exists():
            path = TEST_LOGS / f"{occasion}-{self.name}-lan.log"
            path.write_text(lan_log.read_text(encoding="utf-8", errors="replace"), encoding="utf-8")
            saved.append(path)
        return saved

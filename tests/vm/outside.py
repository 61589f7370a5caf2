"""Systems outside the appliance, as programs on this computer's loopback: an HTTP server and a smarthost."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import outside

LOOPBACK = "127.0.0.1"
_PROGRAMS = Path(outside.__file__).parent
_START_DEADLINE_S = 30.0
_LOOK_EVERY_S = 0.1


class NotSeen(Exception):
    """What was waited for did not come."""


class OutsideSystem:
    """One of the programs of tests/outside; its record survives that it goes down and comes back on the same port."""

    def __init__(self, program: str, port: int, record: Path) -> None:
        self.port = port
        self._command = [sys.executable, str(_PROGRAMS / program), LOOPBACK, str(port), str(record)]
        self._record = record
        self._process: subprocess.Popen[str] | None = None

    def up(self) -> None:
        """Start it; returns when it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", f"{self._command} did not start"

    def down(self) -> None:
        """End it; whoever connects is refused from now on."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=_START_DEADLINE_S)
            self._process = None

    def taken(self) -> list[dict[str, Any]]:
        """Everything it ever took, in order."""
        if not self._record.exists():
            return []
        return [json.loads(line) for line in self._record.read_text(encoding="utf-8").splitlines()]

    def wait_for(self, number: int, deadline_s: float) -> list[dict[str, Any]]:
        """Wait until it took `number` things in all; returns all of them, `NotSeen` at the deadline."""
        end = time.monotonic() + deadline_s
        while len(taken := self.taken()) < number:
            if time.monotonic() > end:
                raise NotSeen(f"{len(taken)} of {number} came within {deadline_s:.0f} s")
            time.sleep(_LOOK_EVERY_S)
        return taken


@contextlib.contextmanager
def running(program: str, port: int, record: Path) -> Iterator[OutsideSystem]:
    """The program, up; it is ended with the context."""
    system = OutsideSystem(program, port, record)
    system.up()
    try:
        yield system
    finally:
        system.down()

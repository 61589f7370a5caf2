"""How long this boot took, phase by phase."""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from appliance.contracts.machine import BootPhase
from appliance.errors import NOT_DECODED

CONTAINER = Path("/run/systemd/container")
"""systemd notes here that it runs in a container, where there is no firmware and no kernel start of its own."""


def phases(timestamps: Mapping[str, float], started: float, *, container: bool) -> tuple[BootPhase, ...]:
    """Return the phases until the supervisor started, from systemd's time stamps in seconds of the monotonic clock.

    Firmware and loader are counted backwards from the kernel's start, the rest forwards; a phase that did not happen
    has 0.
    """
    firmware, loader = timestamps["firmware"], timestamps["loader"]
    initrd, userspace = timestamps["initrd"], timestamps["userspace"]
    lengths: dict[str, float] = {}
    if not container:
        if firmware:
            lengths["firmware"] = firmware - loader
        if loader:
            lengths["loader"] = loader
        lengths["kernel"] = initrd or userspace
        if initrd:
            lengths["initrd"] = userspace - initrd
    lengths["userspace"] = max(0.0, started - userspace)
    return tuple(BootPhase(name=name, seconds=round(seconds, 3)) for name, seconds in lengths.items())


class BootRecord:
    """The phases of this boot in a file in /run, so that a supervisor that starts again does not call itself slow."""

    def __init__(self, path: Path, started: float) -> None:
        self._path = path
        self._started = started
        self.phases: tuple[BootPhase, ...] = ()
        self._complete = False

    def begin(self, timestamps: Mapping[str, float]) -> None:
        """Take over what an earlier supervisor of this boot noted, else note the phases so far."""
        try:
            self.phases = msgspec.json.decode(self._path.read_bytes(), type=tuple[BootPhase, ...])
            self._complete = True
        except (FileNotFoundError, *NOT_DECODED):
            self.phases = phases(timestamps, self._started, container=CONTAINER.exists())

    def ready(self) -> None:
        """Note that the machine is ready for the first time since it booted; later calls say nothing new."""
        if not self._complete:
            seconds = round(time.monotonic() - self._started, 3)
            self.phases = (*self.phases, BootPhase(name="ready", seconds=seconds))
            self._complete = True
            self._path.write_bytes(msgspec.json.encode(self.phases))

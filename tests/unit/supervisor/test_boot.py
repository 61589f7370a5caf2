"""How long a boot took."""

import time
from pathlib import Path

from appliance.supervisor.boot import BootRecord, phases

UEFI = {"firmware": 7.5, "loader": 2.0, "initrd": 1.5, "userspace": 4.0, "finish": 0.0}
NSPAWN = {"firmware": 0.0, "loader": 0.0, "initrd": 0.0, "userspace": 1000.0, "finish": 0.0}


def test_firmware_and_loader_are_counted_backwards() -> None:
    found = {phase.name: phase.seconds for phase in phases(UEFI, 6.0, container=False)}
    assert found == {"firmware": 5.5, "loader": 2.0, "kernel": 1.5, "initrd": 2.5, "userspace": 2.0}


def test_a_container_has_no_kernel_start() -> None:
    assert [(phase.name, phase.seconds) for phase in phases(NSPAWN, 1002.5, container=True)] == [("userspace", 2.5)]


def test_a_supervisor_that_starts_again_keeps_what_the_first_one_noted(tmp_path: Path) -> None:
    first = BootRecord(tmp_path / "boot.json", time.monotonic())
    first.begin(UEFI)
    assert "ready" not in [phase.name for phase in first.phases]
    first.ready()
    again = BootRecord(tmp_path / "boot.json", time.monotonic())
    again.begin(UEFI)
    again.ready()
    assert again.phases == first.phases
    assert [phase.name for phase in again.phases][-1] == "ready"

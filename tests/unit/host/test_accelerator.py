"""The probe, against programs that behave as a QEMU with good, broken and hanging KVM does."""

import asyncio
import sys
from pathlib import Path

import pytest

from appliance.host.accelerator import Accelerator, EmulatorMissing, probe, probe_rom, run_guest


def emulator(folder: Path, body: str) -> str:
    """A program that stands in for QEMU."""
    path = folder / "emulator"
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_guest_that_reports_means_kvm(tmp_path: Path) -> None:
    finding = asyncio.run(probe(emulator(tmp_path, "sys.exit(43)"), deadline_s=30))
    assert finding.accelerator is Accelerator.KVM


def test_a_guest_that_hangs_means_tcg_and_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    fake = emulator(tmp_path, f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    finding = asyncio.run(probe(fake, deadline_s=1.0))
    assert finding.accelerator is Accelerator.TCG
    assert "no sign of life" in finding.reason
    assert not pid_file.exists() or not Path(f"/proc/{pid_file.read_text()}").exists()


def test_a_kvm_that_refuses_means_tcg_and_says_why(tmp_path: Path) -> None:
    fake = emulator(tmp_path, "sys.exit('qemu-system-x86_64: Could not access KVM kernel module')")
    finding = asyncio.run(probe(fake, deadline_s=30))
    assert finding.accelerator is Accelerator.TCG
    assert finding.reason.endswith("Could not access KVM kernel module")


def test_an_emulator_that_ends_well_without_a_report_is_no_proof(tmp_path: Path) -> None:
    finding = asyncio.run(probe(emulator(tmp_path, "sys.exit(0)"), deadline_s=30))
    assert finding.accelerator is Accelerator.TCG


def test_a_missing_emulator_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmulatorMissing):
        asyncio.run(probe(str(tmp_path / "nothing")))


def test_the_real_guest_reports_under_tcg() -> None:
    assert asyncio.run(run_guest(Accelerator.TCG, deadline_s=60)) == ""


def test_the_guest_begins_at_the_reset_vector() -> None:
    rom = probe_rom()
    assert len(rom) == 65536
    assert rom[-16:-13] == bytes.fromhex("e90dff")
    assert rom[-256:-253] == bytes.fromhex("fa2e66")

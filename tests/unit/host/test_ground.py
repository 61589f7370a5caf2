"""What virtual machines stand on: where /usr is, and whether KVM works."""

import asyncio
import sys
from pathlib import Path

import pytest

from appliance.host.accelerator import Accelerator, Finding
from appliance.host.ground import disks, kvm

MOUNTS = """\
22 1 0:20 / / rw,relatime - tmpfs tmpfs rw
25 22 254:0 / /usr ro,nodev,relatime shared:3 - {kind} {source} ro,user_xattr
30 22 254:1 / /var rw - ext4 /dev/vda5 rw
"""


@pytest.mark.parametrize(
    ("kind", "source", "found"),
    [
        ("erofs", "/dev/mapper/usr", ("/dev/mapper/usr",)),
        ("erofs", "/usr.erofs", ()),
        ("ext4", "/dev/vda", ()),
        ("overlay", "overlay", ()),
    ],
)
def test_a_guest_gets_the_device_that_usr_is_on(
    tmp_path: Path, kind: str, source: str, found: tuple[str, ...]
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(kind=kind, source=source))
    assert disks(mounts, tmp_path) == found


def test_where_usr_is_a_directory_the_images_that_were_laid_out_are_used(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(kind="ext4", source="/dev/vda"))
    for name in ("usr.erofs", "code.erofs"):
        (tmp_path / name).touch()
    assert disks(mounts, tmp_path) == (str(tmp_path / "usr.erofs"), str(tmp_path / "code.erofs"))


def detector(folder: Path, says: str) -> str:
    """A program that says what kind of machine this is."""
    path = folder / "detector"
    path.write_text(f"#!/bin/sh\necho {says}\n")
    path.chmod(0o755)
    return str(path)


def emulator(folder: Path, body: str) -> str:
    """A program that stands in for QEMU, and counts how often it was started."""
    path = folder / "emulator"
    path.write_text(f"#!{sys.executable}\nimport sys\nopen({str(folder / 'count')!r}, 'a').write('x')\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_without_a_device_nobody_asks(tmp_path: Path) -> None:
    finding = asyncio.run(kvm(tmp_path / "kvm.json", tmp_path / "nothing", emulator(tmp_path, "sys.exit(43)")))
    assert finding.accelerator is Accelerator.TCG
    assert not (tmp_path / "count").exists()


@pytest.mark.parametrize(("body", "accelerator"), [("sys.exit(43)", Accelerator.KVM), ("sys.exit(1)", Accelerator.TCG)])
def test_a_device_is_tried_once_for_every_boot(tmp_path: Path, body: str, accelerator: Accelerator) -> None:
    (tmp_path / "kvm").touch()
    program = emulator(tmp_path, body)
    for _ in range(2):
        finding = asyncio.run(kvm(tmp_path / "kvm.json", tmp_path / "kvm", program, detector(tmp_path, "none")))
        assert finding.accelerator is accelerator
    assert (tmp_path / "count").read_text() == "x"


@pytest.mark.parametrize(("body", "accelerator"), [("sys.exit(43)", Accelerator.KVM), ("sys.exit(1)", Accelerator.TCG)])
def test_on_a_processor_that_is_emulated_a_device_is_tried_once_somebody_wants_guests(
    tmp_path: Path, body: str, accelerator: Accelerator
) -> None:
    (tmp_path / "kvm").touch()
    program, says = emulator(tmp_path, body), detector(tmp_path, "qemu")

    def found(*, asked: bool) -> Finding:
        return asyncio.run(kvm(tmp_path / "kvm.json", tmp_path / "kvm", program, says, asked=asked))

    for _ in range(2):
        finding = found(asked=False)
        assert (finding.accelerator, finding.emulated) == (Accelerator.TCG, True)
        assert finding.reason == "this machine's own processor is emulated"
    assert not (tmp_path / "count").exists()
    for _ in range(2):
        assert found(asked=True).accelerator is accelerator
    finding = found(asked=False)
    assert (finding.accelerator, finding.emulated) == (accelerator, True)
    assert finding.reason.startswith("this machine's own processor is emulated; ")
    assert (tmp_path / "count").read_text() == "x"


def test_where_nobody_tells_what_the_machine_is_the_guest_decides(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()
    program = emulator(tmp_path, "sys.exit(43)")
    finding = asyncio.run(kvm(tmp_path / "kvm.json", tmp_path / "kvm", program, str(tmp_path / "nothing")))
    assert finding.accelerator is Accelerator.KVM


def test_an_emulator_that_is_missing_means_that_there_is_no_kvm(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()
    missing, real = str(tmp_path / "nothing"), detector(tmp_path, "none")
    finding = asyncio.run(kvm(tmp_path / "kvm.json", tmp_path / "kvm", missing, real))
    assert finding.accelerator is Accelerator.TCG
    assert "cannot be started" in finding.reason

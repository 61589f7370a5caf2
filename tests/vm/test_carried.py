"""Uplinks that are a VLAN, a bond or both, in the box's own kernel: each is turned into each."""

import base64
import io
import zipfile

import pytest

from scripts.virtual.image import REPOSITORY
from tests.vm.driver import VirtualMachine

MODULES = ("tests/unit/host/carried.py", "tests/unit/host/place.py", "tests/unit/supervisor/fakes.py")
ARCHIVE = "/run/carried.zip"
DEADLINE_S = 600.0


@pytest.fixture(scope="module")
def trial(machine: VirtualMachine) -> VirtualMachine:
    """The machine, to which the trial was brought."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for folder in {parent for module in MODULES for parent in (REPOSITORY / module).parents}:
            if folder.is_relative_to(REPOSITORY / "tests"):
                archive.writestr(f"{folder.relative_to(REPOSITORY)}/__init__.py", "")
        for module in MODULES:
            archive.write(REPOSITORY / module, module)
    done = machine.run("sh", "-c", f"base64 -d > {ARCHIVE}", stdin=base64.b64encode(content.getvalue()).decode())
    assert done.code == 0, done.err
    return machine


def test_every_kind_of_uplink_turns_into_every_other(trial: VirtualMachine) -> None:
    program = (
        f"import asyncio, pathlib, sys; sys.path.insert(0, {ARCHIVE!r}); from tests.unit.host import carried; "
        "print(asyncio.run(carried.turned_into_each_other(pathlib.Path('/run/carried'))))"
    )
    steps = trial.output("python3", "-c", program, deadline_s=DEADLINE_S)
    assert "'VLAN of a bond to VLAN': [" in steps

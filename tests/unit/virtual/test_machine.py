"""The machine's command line, and its start against a program that speaks as much QMP as a start needs."""

import asyncio
import stat
import sys
from pathlib import Path

import pytest

from appliance.host.accelerator import Accelerator
from scripts.virtual.errors import MachineFailed
from scripts.virtual.machine import MachineSpec, command_line, reachable, running
from scripts.virtual.ports import Forwards, choose

# Finds the descriptor of its QMP socket in its arguments, as QEMU does.
_QMP = """
import json, re, socket, sys
channel = socket.socket(fileno=int(re.search(r"id=qmp,fd=(\\d+)", " ".join(sys.argv)).group(1)))
channel.send(json.dumps({"QMP": {"version": {}, "capabilities": []}}).encode() + b"\\n")
while request := channel.recv(65536):
    channel.send(json.dumps({"return": {}, "id": json.loads(request).get("id")}).encode() + b"\\n")
"""
_TAKEN = "qemu-system-x86_64: -netdev user: Could not set up host forwarding rule 'tcp:127.0.0.1:8443-:443'"


def spec(folder: Path, body: str = "", forwards: Forwards | None = None) -> MachineSpec:
    """A machine whose emulator is a Python program."""
    emulator = folder / "emulator"
    emulator.write_text(f"#!{sys.executable}\n{body}")
    emulator.chmod(0o755)
    return MachineSpec(
        disk=folder / "disk.qcow2",
        variables=folder / "variables.qcow2",
        log_folder=folder / "log",
        accelerator=Accelerator.TCG,
        network=(forwards or choose()).arguments,
        credentials={"alpha-ren.secret": b"not for everybody"},
        emulator=str(emulator),
    )


def test_the_firmware_keeps_its_variables_behind_smm(tmp_path: Path) -> None:
    command = command_line(spec(tmp_path), 3, {"console": 4})
    assert "q35,smm=on" in command
    assert "driver=cfi.pflash01,property=secure,value=on" in command


def test_a_credential_is_in_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    async def start() -> None:
        async with running(spec(tmp_path, _QMP)):
            pass

    asyncio.run(start())
    file = tmp_path / "log" / "credentials" / "alpha-ren.secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes() == b"io.systemd.credential.binary:alpha-ren.secret=bm90IGZvciBldmVyeWJvZHk="
    assert not any("not for everybody" in word for word in command_line(spec(tmp_path), 3, {"console": 4}))


def test_a_port_that_is_taken_at_the_last_moment_is_chosen_around(tmp_path: Path) -> None:
    mark = tmp_path / "second"
    body = f"import pathlib, sys\nif not pathlib.Path({str(mark)!r}).exists():\n"
    body += f"    pathlib.Path({str(mark)!r}).touch()\n    sys.exit({_TAKEN!r})\n{_QMP}"
    starts: list[Forwards] = []

    def make(forwards: Forwards) -> MachineSpec:
        starts.append(forwards)
        return spec(tmp_path, body, forwards)

    async def start() -> None:
        async with reachable(make) as (_, forwards):
            assert forwards == starts[-1]

    asyncio.run(start())
    assert len(starts) == 2


def test_an_emulator_that_ends_at_once_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    async def start() -> None:
        async with running(spec(tmp_path, "import sys; sys.exit('no such machine')")):
            pass

    with pytest.raises(MachineFailed, match="no such machine"):
        asyncio.run(start())

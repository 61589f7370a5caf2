"""The local screen as a process on a real terminal that, like a serial line, does not know its size."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from appliance.contracts.machine import MachineStatus
from appliance.errors import Problem
from tests.terminal import Serial, text_of
from tests.unit.firstboot.samples import FAILED, ON_TRIAL, READY
from tests.unit.supervisor.control_stub import ControlStub

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 30.0
F2, F4, F6, DOWN = "\x1bOQ", "\x1bOS", "\x1b[17~", "\x1b[B"


@contextmanager
def screen(endpoint: str, **environment: str) -> Iterator[tuple[Serial, subprocess.Popen[bytes]]]:
    """Start the screen with a terminal of its own, which for a login or a service is the controlling one."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "firstboot.screen", "--socket", endpoint],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TERM": "vt220", "LANG": "C", **environment},
    )
    os.close(slave)
    serial = Serial(master)
    try:
        yield serial, process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)
        serial.hang_up()


def status_reply(status: MachineStatus) -> Callable[[str, bytes], list[bytes]]:
    return lambda _call, _body: [b"ok", msgspec.json.encode(status)]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_it_shows_the_machine_on_a_terminal_of_unknown_size(tmp_path: Path) -> None:
    with ControlStub(tmp_path, status_reply(READY)) as stub, screen(stub.endpoint) as (serial, _):
        painted = serial.read_until("arvpn")
    for text in ("ALPHA-REN", READY.console_url, "10.0.2.15/24", "7K3M-9QXT", READY.fingerprint[:47], "arsrv-2"):
        assert text in painted


def test_nothing_is_painted_while_nothing_changes_and_then_only_the_rows_that_did(tmp_path: Path) -> None:
    said = [READY]
    with (
        ControlStub(tmp_path, lambda _call, _body: [b"ok", msgspec.json.encode(said[0])]) as stub,
        screen(stub.endpoint) as (serial, _),
    ):
        serial.read_until("No problem is known.")
        asked = len(stub.asked)
        said[0] = msgspec.structs.replace(READY, at=READY.at + 5)
        wait_for(lambda: len(stub.asked) > asked + 2)
        assert text_of(serial.read_now()) == ""
        said[0] = msgspec.structs.replace(READY, ready=False, units=FAILED.units)
        painted = serial.read_until("arsrv-2     failed")
        assert "Console" not in painted
        assert "Fingerprint" not in painted
        serial.type("x")
        assert "Console" in serial.read_until("Fingerprint")


def test_it_waits_for_the_supervisor_and_says_when_it_is_gone_again(tmp_path: Path) -> None:
    with screen(f"ipc://{tmp_path}/supervisor.sock") as (serial, _):
        serial.read_until("waiting for the supervisor")
        with ControlStub(tmp_path, status_reply(READY)):
            assert "Ready" in serial.read_until("7K3M-9QXT")
        (tmp_path / "supervisor.sock").unlink(missing_ok=True)
        gone = serial.read_until("supervisor-away")
        assert "no answer from the supervisor" in gone
        assert "7K3M-9QXT" not in gone
        with ControlStub(tmp_path, status_reply(READY)):
            serial.read_until("Ready")


@pytest.fixture
def systemctl(tmp_path: Path) -> Path:
    """A `systemctl` first in PATH that writes down what it was asked; PATH is its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "systemctl"
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$1" != poweroff ] || {{ echo no >&2; exit 1; }}\n')
    script.chmod(0o755)
    return folder


def test_the_power_menu_restarts_only_after_yes(tmp_path: Path, systemctl: Path) -> None:
    with (
        ControlStub(tmp_path, status_reply(READY)) as stub,
        screen(stub.endpoint, PATH=f"{systemctl}:{os.environ['PATH']}") as (serial, _),
    ):
        serial.read_until("Ready")
        serial.type(F2)
        serial.read_until("Power off")
        serial.type(DOWN)
        serial.read_until("> Restart")
        serial.type("\r")
        serial.read_until("Restart alpha-ren?")
        serial.type("n")
        serial.read_until("arclst")
        assert not (tmp_path / "asked").exists()
        serial.type(F2)
        serial.read_until("Power off")
        serial.type(DOWN)
        serial.read_until("> Restart")
        serial.type("\r")
        serial.read_until("Restart alpha-ren?")
        serial.type("y")
        wait_for(lambda: (tmp_path / "asked").exists() and (tmp_path / "asked").read_text() == "reboot\n")


def test_a_power_off_that_does_not_work_is_said(tmp_path: Path, systemctl: Path) -> None:
    with (
        ControlStub(tmp_path, status_reply(READY)) as stub,
        screen(stub.endpoint, PATH=f"{systemctl}:{os.environ['PATH']}") as (serial, _),
    ):
        serial.read_until("Ready")
        serial.type("p")
        serial.read_until("Power off")
        serial.type("\x1b[A")
        serial.read_until("> Power off")
        serial.type("\r")
        serial.read_until("Power off alpha-ren?")
        serial.type("y")
        serial.read_until("command-failed: `systemctl poweroff` failed: no.")


def test_a_person_at_the_console_opens_the_pairing_desk(tmp_path: Path) -> None:
    opened: list[bool] = []

    def answer(call: str, _body: bytes) -> list[bytes]:
        if call == "pairing.open":
            opened.append(True)
            return [b"ok", msgspec.json.encode(READY.pairing)]
        return [b"ok", msgspec.json.encode(READY if opened else msgspec.structs.replace(READY, pairing=None))]

    with ControlStub(tmp_path, answer) as stub, screen(stub.endpoint) as (serial, _):
        serial.read_until("press F4")
        serial.type(F4)
        serial.read_until("7K3M-9QXT")


def test_a_person_at_the_console_keeps_the_change_that_he_sees(tmp_path: Path) -> None:
    kept: list[bytes] = []

    def answer(call: str, body: bytes) -> list[bytes]:
        if call == "confirm":
            kept.append(body)
            return [b"ok", b"{}"]
        return [b"ok", msgspec.json.encode(msgspec.structs.replace(ON_TRIAL, pending=None) if kept else ON_TRIAL)]

    with ControlStub(tmp_path, answer) as stub, screen(stub.endpoint) as (serial, _):
        serial.read_until("Keep it")
        serial.type(F6)
        serial.read_until("No problem is known.")
    assert [msgspec.json.decode(body) for body in kept] == [{"digest": "ab" * 32, "who": "local console"}]


def test_what_the_supervisor_refuses_is_shown_with_its_hint(tmp_path: Path) -> None:
    problem = Problem(code="refused", message="Not now.", hint="Later perhaps.")

    def answer(call: str, _body: bytes) -> list[bytes]:
        if call == "pairing.open":
            return [b"error", msgspec.json.encode(problem)]
        return [b"ok", msgspec.json.encode(READY)]

    with ControlStub(tmp_path, answer) as stub, screen(stub.endpoint) as (serial, _):
        serial.read_until("Ready")
        serial.type(F4)
        assert "refused: Not now." in serial.read_until("Later perhaps.")


def test_the_terminal_is_left_as_it_was_when_the_machine_goes_down(tmp_path: Path) -> None:
    with ControlStub(tmp_path, status_reply(READY)) as stub, screen(stub.endpoint) as (serial, process):
        serial.read_until("Ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=DEADLINE_S) == 0
        assert "\x1b[?1049l" in serial.read_now()
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("key", ["\x03", "\x1a", "\x1c", "\x13", "\x04"], ids=["^C", "^Z", "^\\", "^S", "^D"])
def test_no_control_key_stops_it(tmp_path: Path, key: str) -> None:
    with ControlStub(tmp_path, status_reply(READY)) as stub, screen(stub.endpoint) as (serial, _):
        serial.read_until("No problem is known.")
        serial.type(key)
        serial.read_until("No problem is known.")


def test_a_terminal_that_goes_away_ends_it(tmp_path: Path) -> None:
    with screen(f"ipc://{tmp_path}/supervisor.sock") as (serial, process):
        serial.read_until("any other key")
        serial.hang_up()
        assert process.wait(timeout=DEADLINE_S) != 0

"""`scripts/run` as a person and as a program use it."""

import json
import os
import pty
import re
import selectors
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.virtual.image import REPOSITORY
from scripts.virtual.ports import LOOPBACK, free_port
from scripts.virtual.storage import Storage

_RUN = str(REPOSITORY / "scripts" / "run")
_END_DEADLINE_S = 150.0


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one machine; its tests follow each other as a person's runs do."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def busy_port() -> Iterator[int]:
    """The port that the machine would take first, taken."""
    with socket.create_server((LOOPBACK, free_port(8443))) as taken:
        yield int(taken.getsockname()[1])


def lines_until(process: subprocess.Popen[str], start: str, deadline_s: float) -> list[str]:
    """The lines that a process prints up to the one that begins with `start`."""
    assert process.stdout is not None
    lines: list[str] = []
    end = time.monotonic() + deadline_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not (lines and lines[-1].startswith(start)):
            assert selector.select(max(0.0, end - time.monotonic())), f"{start!r} did not come; so far: {lines}"
            line = process.stdout.readline()
            assert line, f"the run ended before {start!r} came: {lines}"
            lines.append(line)
    return lines


def is_free(state: Path) -> bool:
    """Whether nothing holds the machine's lock, as QEMU would if it were still there."""
    with Storage(state).lock():
        return True


def test_without_a_terminal_it_prints_facts_and_runs_until_a_signal(state: Path, busy_port: int) -> None:
    command = [_RUN, "--state", str(state)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, bufsize=1)
    try:
        facts = "".join(lines_until(process, "log: ", 60))
        port = int(re.search(r"^console: https://127\.0\.0\.1:(\d+)/$", facts, re.MULTILINE).group(1))  # type: ignore[union-attr]
        assert port != busy_port

        second = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 1
        assert "machine-busy" in second.stderr and str(process.pid) in second.stderr

        lines_until(process, "ready: ", 600)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=_END_DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert rest.splitlines()[-1] == "switched off"
    assert process.returncode == 0
    assert is_free(state)


def test_until_ready_prints_one_json_line_and_shuts_down(state: Path) -> None:
    done = subprocess.run(
        [_RUN, "--state", str(state), "--until-ready"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert report["ready"] is True
    assert report["accelerator"] in ("tcg", "kvm")
    assert report["image_mb"] > 0
    assert report["boot_s"]["total"] > 0
    assert "the machine of the last run" in done.stderr
    assert is_free(state)


def test_a_deadline_that_passes_is_an_error_that_says_where_to_look(state: Path) -> None:
    done = subprocess.run(
        [_RUN, "--state", str(state), "--until-ready", "--deadline", "1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "not-ready" in done.stderr and "console.log" in done.stderr
    assert is_free(state)


def test_a_killed_run_leaves_no_machine_behind(state: Path) -> None:
    process = subprocess.Popen(
        [_RUN, "--state", str(state)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    lines_until(process, "log: ", 60)
    process.kill()
    process.wait()
    end = time.monotonic() + 30
    while not lock_is_free(state):
        assert time.monotonic() < end, "QEMU outlived the run that started it"
        time.sleep(0.1)


def lock_is_free(state: Path) -> bool:
    """Whether the lock can be had, in a process of its own so that a refusal is no exception here."""
    check = subprocess.run(["flock", "--nonblock", str(state / "lock"), "true"], check=False, timeout=30)
    return check.returncode == 0


def test_with_a_terminal_it_shows_the_console_and_the_escape_ends_it(state: Path) -> None:
    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    # The terminal must be the process's controlling one, or Ctrl-C is no signal.
    command = ["setsid", "--ctty", _RUN, "--state", str(state)]
    process = subprocess.Popen(command, stdin=follower, stdout=follower)
    try:
        shown = read_until(leader, rb"console: https://127\.0\.0\.1:\d+/", 60)
        assert b"Ctrl-]" in read_until(leader, rb"every other key goes to it", 60, shown)
        # The firmware's first words on the serial line: from here on the keys go to the machine.
        read_until(leader, rb"BdsDxe|systemd-boot|UEFI", 120)
        assert termios.tcgetattr(follower)[3] & termios.ICANON == 0
        os.write(leader, b"\x1d")
        # The second one does not wait for a guest that has not got to its power button yet.
        read_until(leader, rb"switching off", 60)
        os.write(leader, b"\x03")
        read_until(leader, rb"without a clean power-down|switched off", 60)
        process.wait(timeout=60)
        assert termios.tcgetattr(follower) == before
    finally:
        process.kill()
        process.wait()
        os.close(leader)
        os.close(follower)


def read_until(terminal: int, pattern: bytes, deadline_s: float, so_far: bytes = b"") -> bytes:
    """What a terminal shows until `pattern` is there."""
    end = time.monotonic() + deadline_s
    shown = so_far
    with selectors.DefaultSelector() as selector:
        selector.register(terminal, selectors.EVENT_READ)
        while not re.search(pattern, shown):
            assert selector.select(max(0.0, end - time.monotonic())), f"{pattern!r} did not come: {shown[-500:]!r}"
            shown += os.read(terminal, 65536)
    return shown

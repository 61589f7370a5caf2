"""`scripts/run` as a person and as a program use it."""

import contextlib
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

_RUN = str(REPOSITORY / "scripts" / "run")
_READY_DEADLINE_S = 1000.0
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


def read_until(descriptor: int, pattern: bytes, deadline_s: float) -> bytes:
    """What comes from a pipe or terminal until `pattern` is in it."""
    end = time.monotonic() + deadline_s
    shown = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not re.search(pattern, shown):
            assert selector.select(max(0.0, end - time.monotonic())), f"{pattern!r} did not come: {shown[-500:]!r}"
            more = os.read(descriptor, 65536)
            assert more, f"the run ended before {pattern!r} came: {shown[-500:]!r}"
            shown += more
    return shown


@contextlib.contextmanager
def started(
    command: list[str], stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """A run; it is killed if it is still there at the end."""
    process = subprocess.Popen(command, bufsize=0, stdin=stdin, stdout=stdout)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def is_free(state: Path) -> bool:
    """Whether nothing holds the machine's lock; QEMU would, if it were still there."""
    check = subprocess.run(["flock", "--nonblock", str(state / "lock"), "true"], check=False, timeout=30)
    return check.returncode == 0


def test_without_a_terminal_it_prints_facts_and_runs_until_a_signal(state: Path, busy_port: int) -> None:
    command = [_RUN, "--state", str(state)]
    with started(command) as process:
        assert process.stdout is not None
        output = process.stdout.fileno()
        facts = read_until(output, rb"\nlog: .*\n", 60).decode()
        (port,) = re.findall(r"^console: https://127\.0\.0\.1:(\d+)/$", facts, re.MULTILINE)
        assert int(port) != busy_port

        second = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 1
        assert "machine-busy" in second.stderr
        assert str(process.pid) in second.stderr

        read_until(output, rb"ready: .* after power-on\n", _READY_DEADLINE_S)
        process.send_signal(signal.SIGTERM)
        read_until(output, rb"\nswitched off\n", _END_DEADLINE_S)
        assert process.wait(timeout=60) == 0
    assert is_free(state)


def test_until_ready_prints_one_json_line_and_shuts_down(state: Path) -> None:
    done = subprocess.run(
        [_RUN, "--state", str(state), "--until-ready"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_READY_DEADLINE_S + _END_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert report["ready"] is True
    assert report["accelerator"] in ("tcg", "kvm")
    assert report["image_mb"] > 0
    phases = report["boot_s"]
    assert {"power-on", "kernel", "initrd", "userspace", "ready"} <= phases.keys()
    assert sum(phases.values()) == pytest.approx(2 * phases["total"], abs=0.1)
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
    assert "not-ready" in done.stderr
    assert "console.log" in done.stderr
    assert is_free(state)


def test_a_killed_run_leaves_no_machine_behind(state: Path) -> None:
    with started([_RUN, "--state", str(state)]) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), rb"\nlog: .*\n", 60)
        assert not is_free(state)
    end = time.monotonic() + 30
    while not is_free(state):
        assert time.monotonic() < end, "QEMU outlived the run that started it"
        time.sleep(0.1)


def test_with_a_terminal_it_shows_the_console_and_the_escape_ends_it(state: Path) -> None:
    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    # The terminal must be the process's controlling one, or Ctrl-C is no signal.
    command = ["setsid", "--ctty", _RUN, "--state", str(state)]
    try:
        with started(command, stdin=follower, stdout=follower) as process:
            facts = read_until(leader, rb"every other key goes to it", 60)
            assert re.search(rb"console: https://127\.0\.0\.1:\d+/\r\n", facts)
            assert b"Ctrl-]" in facts
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
        os.close(leader)
        os.close(follower)

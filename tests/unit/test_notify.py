"""The process frame, seen from systemd's side: a real process with a real notification socket."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DEADLINE_S = 20.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Systemd's end of the notification socket, at tmp_path/notify."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(DEADLINE_S)
        yield end


def start(tmp_path: Path, body: str, **environment: str) -> subprocess.Popen[str]:
    """Start a process whose `main` is `body`."""
    source = (
        "import asyncio, sys\nfrom appliance import notify\nfrom appliance.errors import InvalidInput\n"
        f"async def main() -> None:\n{body}\nsys.exit(notify.run(main))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", source],
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_service_says_ready_and_ends_cleanly_at_sigterm(tmp_path: Path, manager: socket.socket) -> None:
    body = """
    notify.ready('listening')
    try:
        await asyncio.Event().wait()
    finally:
        print('closed', file=sys.stderr)
"""
    with start(tmp_path, body) as process:
        assert manager.recv(1000) == b"READY=1\nSTATUS=listening"
        process.send_signal(signal.SIGTERM)
        assert manager.recv(1000) == b"STOPPING=1"
        _, said = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, said) == (0, "closed\n")


def test_the_watchdog_is_fed_while_the_loop_turns(tmp_path: Path, manager: socket.socket) -> None:
    with start(tmp_path, "    await asyncio.Event().wait()", WATCHDOG_USEC="60000") as process:
        assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0


def test_a_process_without_descriptors_feeds_its_watchdog_and_stops(tmp_path: Path, manager: socket.socket) -> None:
    body = """
    import os
    notify.ready()
    files = []
    try:
        while True:
            files.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        await asyncio.Event().wait()
"""
    with start(tmp_path, body, WATCHDOG_USEC="60000") as process:
        assert [manager.recv(1000) for _ in range(5)] == [b"READY=1", *[b"WATCHDOG=1"] * 4]
        process.terminate()
        said = b""
        while said != b"STOPPING=1":
            said = manager.recv(1000)
        _, text = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, text) == (0, "")


def test_an_error_that_ends_a_service_is_one_sentence_and_status_one(tmp_path: Path, manager: socket.socket) -> None:
    body = """
    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
async def fail() -> None:
    raise InvalidInput('No good.')
"""
    with start(tmp_path, body) as process:
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert said.splitlines() == [
        "CRITICAL appliance.notify: No good. [invalid-input] Correct the named field and send it again."
    ]

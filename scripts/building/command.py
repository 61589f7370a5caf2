"""Running a long command: its output goes to a log, a person sees that it moves, and how it ended."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.building import paths
from scripts.building.failure import Failure

LONGEST_S = 1800.0
HEARTBEAT_S = 20.0

NO_SPACE = re.compile(r"No space left on device|not enough free space|You don't have enough free space", re.IGNORECASE)
NO_NETWORK = re.compile(
    r"Temporary failure resolving|Could not resolve|Could not connect|Name or service not known|Network is unreachable"
    r"|NewConnectionError|NameResolutionError|Failed to establish a new connection|Connection timed out|ConnectTimeout",
)


def as_root(argv: Sequence[str]) -> list[str]:
    """The command as root would run it: itself, or through sudo."""
    if os.geteuid() == 0:
        return list(argv)
    if shutil.which("sudo") is None:
        raise Failure(
            "root-needed",
            "This step needs root, and there is no sudo.",
            "Run the same command as root, or install sudo and allow it for this user.",
        )
    return ["sudo", "--preserve-env=DEBIAN_FRONTEND,SOURCE_DATE_EPOCH,PYTHONPATH", "--", *argv]


def run(
    doing: str,
    argv: Sequence[str],
    *,
    log: str,
    hint: str = "",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit_s: float = LONGEST_S,
) -> None:
    """Runs a command to its end, showing `doing` and the time it takes; its output is in `build/log/<log>.log`.

    Raises Failure with a sentence that fits: no space, no network, too long, or the last line that the command wrote.
    """
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    file = paths.LOGS / f"{log}.log"
    started = time.monotonic()
    with file.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            start_new_session=not sys.stdin.isatty(),
        )
        with _Heartbeat(doing, file):
            try:
                status = process.wait(timeout=limit_s)
            except subprocess.TimeoutExpired:
                _end(process)
                raise Failure(
                    "step-too-long", f"{doing} did not end within {limit_s:.0f} s.", f"Its output is in {file}."
                ) from None
            except BaseException:
                _end(process)
                raise
    if status != 0:
        raise explained(doing, file, hint)
    print(f"  {doing}: {time.monotonic() - started:.1f} s", flush=True)


def explained(doing: str, log: Path, hint: str) -> Failure:
    """What a failed command's log says, as one sentence."""
    text = log.read_text(errors="replace")
    if NO_SPACE.search(text):
        return Failure(
            "no-space", f"{doing} failed: there is no space left.", f"Free some on the disk that holds {paths.BUILD}."
        )
    if NO_NETWORK.search(text):
        return Failure(
            "no-network",
            f"{doing} failed: a package server could not be reached.",
            "Check the network and the proxy; what was downloaded is kept.",
        )
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it wrote nothing")
    return Failure("step-failed", f"{doing} failed: {last}", hint or f"Its whole output is in {log}.")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Heartbeat:
    """Shows that a step moves: on a terminal one line that changes, elsewhere a line every while."""

    def __init__(self, doing: str, log: Path) -> None:
        self._doing = doing
        self._log = log
        self._over = threading.Event()
        self._terminal = sys.stdout.isatty()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        if not self._terminal:
            print(f"  {self._doing} …", flush=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._terminal:
            print("\r\x1b[K", end="", flush=True)

    def _beat(self) -> None:
        started = time.monotonic()
        while not self._over.wait(0.5 if self._terminal else HEARTBEAT_S):
            seconds = time.monotonic() - started
            if self._terminal:
                width = shutil.get_terminal_size().columns - 1
                line = f"  {self._doing} … {seconds:.0f} s  {self._last_line()}"
                print(f"\r\x1b[K{line[:width]}", end="", flush=True)
            else:
                print(f"  {self._doing} … {seconds:.0f} s", flush=True)

    def _last_line(self) -> str:
        with self._log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 500))
            lines = file.read().decode(errors="replace").splitlines()
        return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", lines[-1]).strip() if lines else ""

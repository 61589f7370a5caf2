"""What the machines of a lab wrote down: the journal on their /var, read from this computer, and their console.

Reading goes to the files, not into the machine, so that it works as well when the machine is off or hangs.
"""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scripts.labs import state
from scripts.labs.errors import LabError

ERROR = 3
"""syslog's priority `err`; lower is worse (RFC 5424, 6.2.1)."""


def folder(lab: str, machine: str) -> Path:
    """Return where the machine's persistent journal is on this computer."""
    return state.folder(lab) / "machines" / machine / "var" / "log" / "journal"


def console(lab: str, machine: str) -> str:
    """Return what the machine's console showed in all its boots."""
    path = state.folder(lab) / f"{machine}.log"
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def command(lab: str, machine: str, unit: str | None, *options: str) -> list[str]:
    """Return the journalctl(1) command line for the machine's journal, of one unit where `unit` is given."""
    argv = ["journalctl", f"--directory={folder(lab, machine)}", "--no-pager", "--quiet", "--all", *options]
    return argv if unit is None else [*argv, f"--unit={unit}"]


def read(lab: str, machine: str, unit: str | None = None, *options: str) -> str:
    """Return the machine's journal as text."""
    if not folder(lab, machine).is_dir():
        return ""
    result = subprocess.run(
        command(lab, machine, unit, *options), capture_output=True, text=True, errors="replace", timeout=60, check=False
    )
    if result.returncode:
        raise LabError(f"The journal of machine `{machine}` cannot be read: {result.stderr.strip()}")
    return result.stdout


def errors(lab: str, machine: str, expected: Sequence[str] = ()) -> list[str]:
    """Return the lines of priority `err` and worse that match none of the regular expressions in `expected`."""
    lines = []
    for text in read(lab, machine, None, "--output=json", f"--priority={ERROR}").splitlines():
        entry = json.loads(text)
        message = entry.get("MESSAGE") or ""
        if isinstance(message, list):  # journald gives bytes that are no text as numbers
            message = bytes(message).decode(errors="replace")
        line = f"{entry.get('_SYSTEMD_UNIT') or entry.get('SYSLOG_IDENTIFIER') or '?'}: {message}"
        if not any(re.search(pattern, line) for pattern in expected):
            lines.append(line)
    return lines


def save(lab: str, machine: str, target: Path) -> list[Path]:
    """Write the machine's journal and console to files beginning with `target`; return their paths."""
    target.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    kinds = {"journal": read(lab, machine, None, "--output=short-monotonic"), "console": console(lab, machine)}
    for kind, text in kinds.items():
        path = target.with_name(f"{target.name}.{kind}.log")
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths

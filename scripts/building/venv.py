"""The Python environment of the scripts and tests, from hashed lock files."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from scripts.building import command, paths
from scripts.building.failure import Failure

# Not whatever `python3` comes first: a version manager's Python has neither Debian's modules nor a stable place.
PYTHON = "/usr/bin/python3"


def make(lock: str) -> None:
    """Makes `build/venv` hold what `requirements/<lock>.lock` says; `dev` holds everything that `box` does.

    Does nothing when it already does.
    """
    if ready(lock):
        return
    wanted = _stamp(lock)
    have = _read(paths.VENV / "stamp")
    if have.partition(" ")[0] != wanted.partition(" ")[0]:
        shutil.rmtree(paths.VENV, ignore_errors=True)
    (paths.VENV / "stamp").unlink(missing_ok=True)
    command.run("Making the Python environment", [PYTHON, "-m", "venv", str(paths.VENV)], log="venv", limit_s=300)
    command.run(
        f"Installing Python packages ({lock})",
        [
            *(str(paths.VENV / "bin/python"), "-m", "pip", "install"),
            *("--require-hashes", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"),
            *("--cache-dir", str(paths.PIP_CACHE)),
            *("--requirement", str(paths.REPOSITORY / f"requirements/{lock}.lock")),
        ],
        log=f"venv-{lock}",
    )
    (paths.VENV / "stamp").write_text(wanted)


def ready(lock: str) -> bool:
    """Whether the environment holds what the lock file says."""
    have = _read(paths.VENV / "stamp")
    return have == _stamp(lock) or (lock == "box" and have == _stamp("dev"))


def _stamp(lock: str) -> str:
    digest = hashlib.sha256((paths.REPOSITORY / f"requirements/{lock}.lock").read_bytes()).hexdigest()
    return f"{_version()} {digest}"


def _version() -> str:
    try:
        answer = subprocess.run([PYTHON, "--version"], capture_output=True, text=True, check=True, timeout=30)
    except FileNotFoundError:
        raise Failure("python-missing", f"There is no {PYTHON}.", "Install Debian's python3 package.") from None
    version = answer.stdout.split()[1]
    if tuple(int(part) for part in version.split(".")[:2]) < (3, 11):
        raise Failure("python-too-old", f"{PYTHON} is version {version}.", "Debian 12 and 13 have 3.11 and 3.13.")
    return version


def _read(stamp: Path) -> str:
    return stamp.read_text() if stamp.is_file() else ""

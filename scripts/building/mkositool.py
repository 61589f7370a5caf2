"""mkosi, the image builder: Debian's own package of the firmware's release, unpacked beside the project.

It is pure Python, so it runs on an older host; it is on no Python index.
"""

import subprocess
from pathlib import Path

from scripts.building import aptsources, command, paths
from scripts.building.failure import Failure

PYTHON = "/usr/bin/python3"


def fetch() -> None:
    """Downloads and unpacks mkosi once."""
    if library().is_dir():
        return
    aptsources.write(paths.SANDBOX)
    state, archives = paths.APT / "state", paths.APT / "archives"
    for folder in (state / "lists/partial", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    options = [
        f"Dir::Etc={paths.SANDBOX}/etc/apt",
        f"Dir::State={state}",
        f"Dir::Cache={paths.APT}",
        "Dir::State::status=/dev/null",
        "APT::Sandbox::User=",
        "Acquire::Retries=3",
    ]
    apt = ["apt-get", "--quiet", *(f"--option={option}" for option in options)]
    command.run(f"Fetching the package lists of {aptsources.RELEASE}", [*apt, "update"], log="mkosi-lists", limit_s=300)
    command.run("Fetching mkosi", [*apt, "download", "mkosi"], log="mkosi-fetch", cwd=archives, limit_s=300)
    package = max(archives.glob("mkosi_*.deb"), key=lambda file: file.stat().st_mtime)
    partial = paths.MKOSI / "tool.partial"
    subprocess.run(["rm", "-rf", partial], check=True, timeout=60)
    subprocess.run(["dpkg-deb", "--extract", package, partial], check=True, timeout=60)
    partial.rename(paths.MKOSI_TOOL)


def library() -> Path:
    """The folder that holds mkosi's Python package."""
    return paths.MKOSI_TOOL / "usr/lib/python3/dist-packages"


def invocation(arguments: list[str]) -> list[str]:
    """The command line, as root, that runs mkosi with these arguments."""
    if not library().is_dir():
        raise Failure("not-bootstrapped", "The image builder is missing.", "Run `scripts/bootstrap image` first.")
    return command.as_root(["env", f"PYTHONPATH={library()}", PYTHON, "-m", "mkosi", *arguments])

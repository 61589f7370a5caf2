"""A directory on a disk that loses what was not synced, when the test says so."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.disk import ROOM

REPOSITORY = Path(__file__).resolve().parents[2]
DEBIAN_PYTHON = "/usr/bin/python3"
"""pyfuse3 comes from Debian, for Debian's own interpreter."""
MOUNTED_WITHIN_S = 30.0
NAME = "lossy"
"""The device that the kernel shows for it."""
OWN = ("/usr/bin/setsid", "/usr/bin/setpriv", "--pdeathsig", "KILL")
"""Before a command: a Ctrl-C at the terminal does not reach it, and it does not outlive who started it."""
RUN = "arc"
"""What the directory of a run is called, with something after it; short, since sockets are in it."""


class Layer:
    """The control panel of one mounted disk; `mount.py` says what stands behind it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fault(self, kind: str) -> None:
        """Let a fault begin: `write`, `sync` or `full`; `none` ends it."""
        os.setxattr(self.directory, "user.fault", kind.encode())

    def cut(self, seed: str = "") -> None:
        """Lose all that was not synced; with a seed, only some of it, in no order."""
        os.setxattr(self.directory, "user.cut", seed.encode())

    def count(self, what: str) -> int:
        """Return how many `syncs` there were, blocks are `unsynced`, or calls were `refused`."""
        return int(os.getxattr(self.directory, f"user.{what}"))


@contextlib.contextmanager
def mounted(directory: Path, room: int = ROOM) -> Iterator[Layer]:
    """A fresh disk of so many bytes at `directory`, which is made; it and all that was on it are gone at the end."""
    directory.mkdir(exist_ok=True)
    assert os.access("/dev/fuse", os.R_OK | os.W_OK), "the fault layer needs /dev/fuse (modprobe fuse)"
    log = directory.with_name(directory.name + ".fuse.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*OWN, DEBIAN_PYTHON, "-m", "tests.chaos.mount", str(directory), str(room)], cwd=REPOSITORY, stderr=output
        )
    try:
        end = time.monotonic() + MOUNTED_WITHIN_S
        while not os.path.ismount(directory):
            assert process.poll() is None, f"the fault layer did not start:\n{log.read_text()}"
            assert time.monotonic() < end, "the fault layer was not mounted in time"
            time.sleep(0.01)
        yield Layer(directory)
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=False, capture_output=True, timeout=30)
        process.kill()  # it would wait for as long as some other mount namespace has it
        process.wait(10)
        print(log.read_text(), end="", file=sys.stderr)


def swept() -> list[Path]:
    """Take away what runs have left that were killed outright: mounts nobody serves any more, and what is around them.

    Returns the mounts. A disk that is in use answers, and stays.
    """
    left = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines() if _is_lossy(line)]
    dead = [mount for mount in left if _is_dead(mount)]
    for mount in dead:
        subprocess.run(["umount", "--lazy", str(mount)], check=True, capture_output=True, timeout=30)
    for run in {mount.parents[1] for mount in dead}:
        in_use = any(run in mount.parents for mount in left if mount not in dead)
        if run.parent == Path(tempfile.gettempdir()) and run.name.startswith(RUN) and not in_use:
            shutil.rmtree(run)
    return dead


def _is_lossy(line: str) -> bool:
    return line.startswith(f"{NAME} ")


def _is_dead(mount: Path) -> bool:
    try:
        mount.stat()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False

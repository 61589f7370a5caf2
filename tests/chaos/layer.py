"""A directory on a disk that loses what was not synced, when the test says so."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEBIAN_PYTHON = "/usr/bin/python3"
"""pyfuse3 comes from Debian, for Debian's own interpreter."""
MOUNTED_WITHIN_S = 30.0


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
def mounted(directory: Path) -> Iterator[Layer]:
    """A fresh disk at `directory`, which is made; it and all that was on it are gone at the end."""
    directory.mkdir(exist_ok=True)
    assert os.access("/dev/fuse", os.R_OK | os.W_OK), "the fault layer needs /dev/fuse (modprobe fuse)"
    log = directory.with_name(directory.name + ".fuse.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [DEBIAN_PYTHON, "-m", "tests.chaos.mount", str(directory)], cwd=REPOSITORY, stderr=output
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
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        print(log.read_text(), end="", file=sys.stderr)

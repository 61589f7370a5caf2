"""The way into the bench layer: `python3 -m tests.bench.peers.enter ROOT STATE LOWER… MODULE ARGUMENTS`.

Runs in new namespaces. ROOT is an empty directory to mount on, STATE one on a real disk (all that is measured writes
there), LOWER the directories that make up the root, the upper first. Nothing that is written elsewhere is kept.
"""

import os
import subprocess
import sys
from pathlib import Path

from scripts.labs import kernel

REPOSITORY = Path(__file__).resolve().parents[3]


def main(root: str, state: str, lower: str, *arguments: str) -> None:
    kernel.mount("tmpfs", root, "tmpfs")
    top = Path(root)
    for name in ("upper", "work", "root"):
        (top / name).mkdir()
    kernel.mount(
        "overlay", str(top / "root"), "overlay",
        options=f"lowerdir={lower},upperdir={top / 'upper'},workdir={top / 'work'}",
    )  # fmt: skip
    top /= "root"
    for name in ("repository", "state", "proc", "dev", "tmp", "run"):
        (top / name).mkdir(exist_ok=True)
    kernel.mount("proc", str(top / "proc"), "proc")
    kernel.mount("/dev", str(top / "dev"), flags=kernel.MS_BIND | kernel.MS_REC)
    kernel.mount(str(REPOSITORY), str(top / "repository"), flags=kernel.MS_BIND)
    kernel.mount(state, str(top / "state"), flags=kernel.MS_BIND)
    for name in ("tmp", "run"):
        kernel.mount("tmpfs", str(top / name), "tmpfs")
    (top / "etc/hosts").write_text("127.0.0.1 localhost\n")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
    os.chroot(top)
    os.chdir("/repository")
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONPATH": "/repository",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    command = ["/usr/bin/python3", "-m", *arguments]
    os.execve(command[0], command, environment)


main(*sys.argv[1:])

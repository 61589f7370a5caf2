"""An outside host: namespaces of its own over this computer's file system, with nothing of the firmware in it.

What is started in it belongs to its PID namespace, and so ends with the lab.
"""

import os
import socket
import sys
from pathlib import Path

from scripts.labs import kernel, lan, topology, wiring
from scripts.labs.process import Children

INIT = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"
"""PID 1 of a host: ignoring SIGCHLD lets the kernel reap whatever is orphaned in there."""


class Host:
    """One outside host inside the keeper."""

    def __init__(self, spec: topology.Host, whole: topology.Topology, folder: Path) -> None:
        self.spec = spec
        self.leader = 0
        self._whole = whole
        self._folder = folder
        self.log = folder.parent.parent / f"{spec.name}.log"

    async def start(self, children: Children) -> None:
        """Plug the host in and start its PID 1."""
        self._folder.mkdir(mode=0o700, parents=True)
        resolv = self._folder / "resolv.conf"
        resolv.write_text(f"nameserver {topology.gateway(self._whole, self.spec.lans[0])}\n", encoding="ascii")
        near, far = lan.host_cable(self._whole, self.spec)
        await wiring.apply(children, near, self.log)
        await wiring.apply(children, far, self.log, namespace=self.spec.name)
        self.leader = children.start([sys.executable, "-ISc", INIT], log=self.log, prepare=self._prepare, own_pids=True)

    def _prepare(self) -> None:
        with open(f"/run/netns/{self.spec.name}", "rb") as network:
            kernel.setns(network.fileno(), kernel.CLONE_NEWNET)
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
        kernel.mount("proc", "/proc", "proc")
        kernel.mount("sysfs", "/sys", "sysfs", kernel.MS_RDONLY)
        socket.sethostname(self.spec.name)
        resolv = os.path.realpath("/etc/resolv.conf")
        if os.path.exists(resolv):
            kernel.mount(str(self._folder / "resolv.conf"), resolv, flags=kernel.MS_BIND)

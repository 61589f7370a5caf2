"""A machine of the lab: the firmware's /usr under systemd-nspawn, started the way the box starts it.

The container's root is a tmpfs with only /usr from the tree and /var from the lab's folder, so nothing can lean on
what Debian's packages left in /etc. /var is kept while the lab is up: a machine that reboots finds its state again.
Cards and control group are made anew at every boot, as a cold start would.
"""

import asyncio
import contextlib
import os
import signal
import socket
import uuid
from pathlib import Path
from typing import Literal

import msgspec

from scripts.labs import cgroup, guests, kernel, lan, topology, wiring
from scripts.labs.process import Children

State = Literal["off", "starting", "running"]
REBOOT_STATUS = 133
"""systemd-nspawn --keep-unit ends with it when the container asks for a reboot (systemd-nspawn(1), "Exit status")."""
POWER_OFF = signal.SIGRTMIN + 4
"""Asks systemd for a clean power-off (systemd(1), "Signals")."""
OVERLAID = ("appliance", "firstboot")
"""Packages of the working copy that are laid over the firmware's own."""
CODE = "usr/lib/alpha-ren"


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where a machine's bytes come from: the firmware's tree and, over it, the working copy; for one that runs virtual
    machines also both of them as `disks`.
    """

    tree: Path
    working_copy: Path
    disks: guests.Disks | None = None

    def overlays(self) -> list[str]:
        """Return the packages that both have."""
        return [
            name for name in OVERLAID
            if (self.tree / CODE / name).is_dir() and (self.working_copy / name).is_dir()
        ]  # fmt: skip


def command_line(machine: topology.Machine, sources: Sources, folder: Path) -> list[str]:
    """Return how systemd-nspawn is called for `machine`, whose files are in `folder`."""
    argv = [
        "systemd-nspawn", "--quiet", "--settings=no", "--register=no", "--keep-unit", "--boot",
        f"--directory={folder / 'root'}", "--volatile=yes", f"--machine={machine.name}",
        f"--uuid={uuid.uuid5(uuid.NAMESPACE_URL, str(folder)).hex}",
        f"--network-namespace-path=/run/netns/{machine.name}", "--capability=CAP_NET_ADMIN",
        "--link-journal=no", "--resolv-conf=off", "--timezone=off",
        "--console=read-only", "--notify-ready=yes",
        f"--bind={folder / 'var'}:/var", "--bind=/dev/net/tun",
    ]  # fmt: skip
    argv += [f"--bind-ro={sources.working_copy / name}:/{CODE}/{name}" for name in sources.overlays()]
    if machine.guests and sources.disks is not None:
        argv += [f"--bind-ro={sources.disks.usr}:{guests.USR}", f"--bind-ro={sources.disks.code}:{guests.CODE}"]
    argv += [f"--load-credential={name}:{folder / 'credentials' / name}" for name in sorted(machine.credentials)]
    return [*argv, *machine.cmdline]


class Machine:
    """The life of one machine inside the keeper."""

    def __init__(self, spec: topology.Machine, whole: topology.Topology, folder: Path, group: Path) -> None:
        self.spec = spec
        self.state: State = "off"
        self.leader = 0
        self.boots = 0
        self._spawner = 0
        self.changed = asyncio.Condition()
        self._whole = whole
        self._folder = folder
        self._group = group
        self._wanted = asyncio.Event()
        self._sources: Sources | None = None
        self._notices: asyncio.Queue[bytes] = asyncio.Queue()
        self._socket = self._listen(folder)

    @staticmethod
    def _listen(folder: Path) -> socket.socket:
        folder.mkdir(mode=0o700, parents=True)
        (folder / "root" / "usr").mkdir(parents=True)
        (folder / "var").mkdir(mode=0o755)
        (folder / "credentials").mkdir(mode=0o700)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        listening.bind(str(folder / "notify"))
        return listening

    def install(self, sources: Sources) -> None:
        """Lay the tree's /usr and the credentials where the container finds them."""
        self._sources = sources
        for name, text in self.spec.credentials.items():
            path = self._folder / "credentials" / name
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
        # A folder of its own for each machine, since systemd-nspawn locks what it boots from.
        kernel.mount(str(sources.tree / "usr"), str(self._folder / "root" / "usr"), flags=kernel.MS_BIND)

    async def live(self, children: Children) -> None:
        """Boot whenever the machine is wanted on, again and again; runs as long as the lab."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive)
        while True:
            await self._wanted.wait()
            status = await self._boot(children)
            if status != REBOOT_STATUS:
                self._wanted.clear()

    def switch_on(self) -> None:
        """Ask for the machine to be on."""
        self._wanted.set()

    def power_off(self) -> None:
        """Ask the machine's systemd for a clean power-off."""
        self._signal(POWER_OFF)

    def unplug(self) -> None:
        """End the machine at once, as a lost power supply does (though what it wrote stays in the page cache)."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        self._wanted.clear()
        if self.leader:
            os.kill(self.leader, number)

    async def _boot(self, children: Children) -> int:
        assert self._sources is not None, "installed before it lives"
        log = self._folder.parent.parent / f"{self.spec.name}.log"
        pull, plug = lan.cable(self._whole, self.spec)
        await wiring.undo(children, pull, log)
        await wiring.apply(children, plug, log)
        self._group.mkdir(parents=True, exist_ok=True)
        await self._enter("starting")
        pid = children.start(
            command_line(self.spec, self._sources, self._folder),
            log=log,
            env={
                "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                "NOTIFY_SOCKET": str(self._folder / "notify"),
                "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",  # /proc/sys/net, as --private-network would have it
            },
            prepare=self._prepare,
            own_pids=True,  # systemd-nspawn looks for the group of PID 1, which has to be one it can see
        )
        self._spawner = pid
        ended = asyncio.ensure_future(children.wait(pid))
        try:
            while not ended.done():
                notice = asyncio.ensure_future(self._notices.get())
                await asyncio.wait({notice, ended}, return_when=asyncio.FIRST_COMPLETED)
                if notice.done():
                    await self._heed(notice.result())
                else:
                    notice.cancel()
        finally:
            ended.cancel()
        self.leader = 0
        cgroup.remove(self._group)
        await wiring.undo(children, pull, log)  # a machine that is off answers nothing
        await self._enter("off")
        return ended.result()

    def _prepare(self) -> None:
        """In the new process: its own group, then namespaces in which that group is the root of the hierarchy."""
        cgroup.enter(self._group)
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWCGROUP)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
        kernel.mount("proc", "/proc", "proc")
        # Over a new /sys: the kernel mounts no file system twice on one place, which it would be on pure version 2.
        kernel.mount("sysfs", "/sys", "sysfs", kernel.MS_RDONLY)
        kernel.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._notices.put_nowait(self._socket.recv(4096))

    async def _heed(self, notice: bytes) -> None:
        """Follow what systemd-nspawn reports (sd_notify(3))."""
        for line in notice.decode(errors="replace").splitlines():
            if line.startswith("X_NSPAWN_LEADER_PID="):
                self.leader = child_called(self._spawner, int(line.partition("=")[2]))
            elif line == "READY=1":
                self.boots += 1
                await self._enter("running")

    async def _enter(self, state: State) -> None:
        async with self.changed:
            self.state = state
            self.changed.notify_all()

    async def reach(self, state: State, boots: int, deadline_s: float) -> bool:
        """Wait until the machine is in `state` after at least `boots` boots; return whether it got there.

        The answer is no when `deadline_s` passed first, or when it should run but went off and nobody wants it on.
        """

        def there() -> bool:
            return self.state == state and self.boots >= boots

        def never() -> bool:
            return state == "running" and self.state == "off" and not self._wanted.is_set()

        async with self.changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await self.changed.wait_for(lambda: there() or never())
            return there()


def child_called(parent: int, inner: int) -> int:
    """Return the PID of the child of `parent` that is `inner` in its parent's namespace, 0 if there is none."""
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    for pid in listed.split():
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        spaces = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
        if len(spaces) > 1 and int(spaces[1]) == inner:
            return int(pid)
    return 0

"""A second guest on the other end of a machine's cables: a stock Debian kernel of its own, for what this computer's
kernel has not (VLANs, bonds).

Nothing runs in it but a shell that is PID 1 and the test's agent, so it is there in seconds.
"""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from appliance.host.accelerator import EMULATOR, Accelerator
from tests.vm import agent, stockguest

MEMORY_MB = 512
BOOT_DEADLINE_S = 300.0
ENDED_DEADLINE_S = 30.0
MODULES = ("virtio_net", "virtio_console", "8021q", "bonding", "qemu_fw_cfg")
PROGRAM = "opt/alpha-ren/agent"
# The port of the agent is there a moment after its module.
INIT = (
    f"for module in {' '.join(MODULES)}; do modprobe $module; done; ip link set lo up; "
    f"until python3 /sys/firmware/qemu_fw_cfg/by_name/{PROGRAM}/raw; do :; done"
)
FULL_DUPLEX = "speed=10000,duplex=full"
"""What a card says of its cable. Without it virtio says nothing, and LACP wants a full-duplex one (IEEE 802.1AX)."""


class Cable(msgspec.Struct, frozen=True):
    """A cable between the machine and its neighbour, known to both emulators by its name: two sockets in a folder."""

    name: str
    folder: Path

    def end(self, here: str, there: str) -> dict[str, object]:
        """The end `here` as QEMU's `netdev_add` takes it."""
        return {
            "type": "dgram",
            "id": self.name,
            "local": {"type": "unix", "path": str(self.folder / f"{self.name}-{here}")},
            "remote": {"type": "unix", "path": str(self.folder / f"{self.name}-{there}")},
        }

    @property
    def of_machine(self) -> dict[str, object]:
        """The machine's end."""
        return self.end("machine", "neighbour")

    @property
    def of_neighbour(self) -> str:
        """The neighbour's end as an option of QEMU's command line, which takes JSON."""
        return msgspec.json.encode(self.end("neighbour", "machine")).decode()


class Neighbour:
    """The guest, which does what it is told: plain calls that return when it is done."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._answers = line.makefile("rb")
        self._requests = 0

    def wait(self) -> None:
        """Wait until it obeys."""
        self._line.settimeout(BOOT_DEADLINE_S)
        msgspec.json.decode(self._answers.readline(), type=agent.Hello)

    def run(self, *argv: str, deadline_s: float = 60.0) -> agent.Completed:
        """Run a command as root; returns how it ended."""
        self._requests += 1
        self._line.settimeout(deadline_s + 30)
        self._line.sendall(msgspec.json.encode(agent.Request(self._requests, list(argv), "", deadline_s)) + b"\n")
        return msgspec.json.decode(self._answers.readline(), type=agent.Completed)

    def shell(self, script: str, deadline_s: float = 60.0) -> str:
        """Run a shell script, each command of which must succeed; returns what it printed."""
        done = self.run("sh", "-ec", script, deadline_s=deadline_s)
        assert done.code == 0, f"{script} ended with {done.code}: {done.out}{done.err}"
        return done.out.strip()


@contextlib.contextmanager
def neighbour(cables: tuple[Cable, ...], log: Path, accelerator: Accelerator) -> Iterator[Neighbour]:
    """The guest with a card for each cable (eth0, eth1…), started but not yet waited for; it ends with the context."""
    guest = stockguest.build()
    program = cables[0].folder / "agent.py"
    program.write_text(agent.PROGRAM, encoding="utf-8")
    ours, theirs = socket.socketpair()
    argv = [
        # It must not outlive the test, not even when that is killed.
        *("setpriv", "--pdeathsig", "KILL", "--", EMULATOR, "-machine", "q35", *accelerator.arguments),
        *("-m", str(MEMORY_MB), "-nodefaults", "-display", "none", "-no-reboot"),
        *("-chardev", f"file,id=console,path={log}", "-serial", "chardev:console"),
        *("-kernel", str(guest / "kernel"), "-initrd", str(guest / "initrd")),
        *("-append", f'root=/dev/vda rw console=ttyS0 net.ifnames=0 init=/bin/sh -- -c "{INIT}"'),
        *("-drive", f"file={guest / 'disk'},format=raw,if=none,id=disk,snapshot=on"),
        *("-device", "virtio-blk-pci,drive=disk", "-fw_cfg", f"name={PROGRAM},file={program}"),
        *("-chardev", f"socket,id=agent,fd={theirs.fileno()}"),
        *("-device", "virtio-serial-pci", "-device", f"virtserialport,chardev=agent,name={agent.PORT}"),
    ]
    for number, cable in enumerate(cables):
        mac = f"52:54:00:4e:00:{number:02x}"
        argv += ["-netdev", cable.of_neighbour]
        argv += ["-device", f"virtio-net-pci,netdev={cable.name},mac={mac},{FULL_DUPLEX}"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with ours, subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)) as emulator:
        theirs.close()
        try:
            yield Neighbour(ours)
        finally:
            emulator.kill()
            emulator.wait(ENDED_DEADLINE_S)

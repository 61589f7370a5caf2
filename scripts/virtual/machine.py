"""One virtual machine: its QEMU command line, its process, and its life over QMP."""

import asyncio
import base64
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec
from qemu.qmp import EventListener, Message, QMPClient, QMPError

from appliance.host.accelerator import EMULATOR, MACHINE_TYPE, Accelerator, EmulatorMissing
from scripts.virtual import ports
from scripts.virtual.errors import MachineFailed, PortTaken
from scripts.virtual.firmware import Firmware
from scripts.virtual.ports import Forwards
from scripts.virtual.serial import SerialLine

log = logging.getLogger(__name__)

UPLINK = "uplink"
"""QEMU's name of the uplink's cable, to which `-card` is added for the card that it is plugged into."""

_QMP_DEADLINE_S = 30.0
_SNAPSHOT_DEADLINE_S = 120.0


class MachineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to start.

    `network` holds options of QEMU's user-mode network; `credentials` go in over SMBIOS (type 11); the serial lines are
    ttyS0, ttyS1… in the guest, the virtio ports are found by their names in /sys/class/virtio-ports. `slots` are what
    cards can be plugged into while the machine runs (PCI Express root ports); the uplink's is in the first, if any.
    """

    disk: Path
    variables: Path
    log_folder: Path
    accelerator: Accelerator
    firmware: Firmware = Firmware()
    memory_mib: int = 2048
    cpus: int = 2
    network: tuple[str, ...] = ()
    credentials: Mapping[str, bytes] = {}
    serial_lines: tuple[str, ...] = ("console",)
    virtio_ports: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    emulator: str = EMULATOR


class Ending(msgspec.Struct, frozen=True):
    """How a machine ended: QEMU's exit code, and whether the guest itself switched the power off."""

    exit_code: int
    by_guest: bool


class Machine:
    """A running QEMU. `power_down` asks the guest, `kill` does not; leaving `running()` kills what still runs."""

    def __init__(self, process: asyncio.subprocess.Process, qmp: QMPClient, lines: Mapping[str, SerialLine]) -> None:
        self._process = process
        self._qmp = qmp
        self._shutdown = EventListener(("SHUTDOWN",))
        self.lines = lines
        qmp.register_listener(self._shutdown)

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    @property
    def console(self) -> SerialLine:
        """The first serial line, ttyS0 in the guest."""
        return self.lines["console"]

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Run a QMP command and return its result; `MachineFailed` if QEMU refuses it or is gone."""
        try:
            async with asyncio.timeout(_QMP_DEADLINE_S):
                return await self._qmp.execute(command, None if arguments is None else dict(arguments))
        except QMPError as error:
            raise MachineFailed(f"QEMU did not carry out {command}: {error}.") from error

    async def unplug(self, device: str, deadline_s: float) -> None:
        """Take a device out of its slot and wait until the guest has let it go; `MachineFailed` at the deadline."""
        with self._qmp.listener("DEVICE_DELETED", lambda event: _device(event) == device) as gone:
            await self.execute("device_del", {"id": device})
            try:
                async with asyncio.timeout(deadline_s):
                    await gone.get()
            except TimeoutError as error:
                raise MachineFailed(f"The guest did not let {device} go within {deadline_s:.0f} s.") from error

    async def monitor(self, line: str, deadline_s: float = _SNAPSHOT_DEADLINE_S) -> str:
        """Run a command of QEMU's human monitor (snapshots of pflash have no QMP command) and return what it says."""
        try:
            async with asyncio.timeout(deadline_s):
                answer = await self._qmp.execute("human-monitor-command", {"command-line": line})
        except QMPError as error:
            raise MachineFailed(f"QEMU did not carry out {line!r}: {error}.") from error
        return str(answer)

    async def save(self, tag: str) -> None:
        """Snapshot memory, devices, disk and UEFI variables under `tag`."""
        complaint = await self.monitor(f"savevm {tag}")
        if complaint.strip():
            raise MachineFailed(f"The snapshot {tag} failed: {complaint.strip()}.")

    async def load(self, tag: str) -> None:
        """Go back to the snapshot `tag`; the guest runs on from there."""
        complaint = await self.monitor(f"loadvm {tag}")
        if complaint.strip():
            raise MachineFailed(f"The snapshot {tag} cannot be loaded: {complaint.strip()}.")

    async def wait(self) -> Ending:
        """Wait until QEMU has ended."""
        exit_code = await self._process.wait()
        by_guest = any(_initiated_by_guest(event) for event in self._shutdown.history)
        return Ending(exit_code, by_guest)

    async def power_down(self, deadline_s: float) -> Ending:
        """Press the ACPI power button and wait for the guest to switch off; `MachineFailed` at the deadline."""
        await self.execute("system_powerdown")
        try:
            async with asyncio.timeout(deadline_s):
                return await self.wait()
        except TimeoutError as error:
            raise MachineFailed(
                f"The guest did not switch itself off within {deadline_s:.0f} s of the power button.",
                hint="Its console log shows what was still running.",
            ) from error

    async def kill(self) -> None:
        """End QEMU at once, as a pulled plug would (its writes so far survive in this computer's page cache)."""
        await _end(self._process)


def _initiated_by_guest(event: Message) -> bool:
    data = event.get("data")
    return isinstance(data, dict) and data.get("reason") == "guest-shutdown"


def _device(event: Message) -> object:
    data = event.get("data")
    return data.get("device") if isinstance(data, dict) else None


def command_line(spec: MachineSpec, qmp: int, lines: Mapping[str, int]) -> list[str]:
    """The whole QEMU command; `qmp` and the values of `lines` are descriptors of connected sockets."""
    command = [
        # QEMU must not outlive whoever started it, not even when that is killed.
        *("setpriv", "--pdeathsig", "KILL", "--", spec.emulator),
        *spec.accelerator.arguments,
        *("-machine", MACHINE_TYPE, "-m", str(spec.memory_mib), "-smp", str(spec.cpus)),
        *("-nodefaults", "-display", "none", "-device", "VGA"),
        *("-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control"),
        *spec.firmware.arguments(spec.variables),
        *("-drive", f"if=none,id=disk,format=qcow2,discard=unmap,file={spec.disk}"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
        *(part for number, slot in enumerate(spec.slots) for part in ("-device", _slot(slot, number))),
        *("-netdev", ",".join((f"user,id={UPLINK}", *spec.network)), "-device", _uplink_card(spec.slots)),
        *("-device", "virtio-rng-pci"),
    ]
    for name, descriptor in lines.items():
        log_file = spec.log_folder / f"{name}.log"
        command += ["-chardev", f"socket,id={name},fd={descriptor},logfile={log_file},logappend=off"]
    for name in spec.serial_lines:
        command += ["-serial", f"chardev:{name}"]
    if spec.virtio_ports:
        command += ["-device", "virtio-serial-pci"]
    for name in spec.virtio_ports:
        command += ["-device", f"virtserialport,chardev={name},name={name}"]
    for name in spec.credentials:
        command += ["-smbios", f"type=11,path={_credential_file(spec, name)}"]
    return command


def _slot(name: str, number: int) -> str:
    return f"pcie-root-port,id={name},chassis={number + 1},slot={number + 1}"


def _uplink_card(slots: tuple[str, ...]) -> str:
    return f"virtio-net-pci,netdev={UPLINK}" + (f",id={UPLINK}-card,bus={slots[0]}" if slots else "")


@contextlib.asynccontextmanager
async def running(spec: MachineSpec, *, lock: int | None = None) -> AsyncIterator[Machine]:
    """Start the machine and yield it once QMP answers; what still runs at the end is killed. `lock` is inherited."""
    spec.log_folder.mkdir(parents=True, exist_ok=True)
    _write_credentials(spec)
    # Socket pairs instead of socket files: no path that is too long, nothing left behind, nobody else can connect.
    names = (*spec.serial_lines, *spec.virtio_ports)
    pairs = {name: socket.socketpair() for name in ("qmp", *names)}
    ours = {name: pair[0] for name, pair in pairs.items()}
    theirs = {name: pair[1].fileno() for name, pair in pairs.items()}
    command = command_line(spec, theirs["qmp"], {name: theirs[name] for name in names})
    complaints = spec.log_folder / "qemu.log"
    async with contextlib.AsyncExitStack() as stack:
        for mine, _ in pairs.values():
            stack.callback(mine.close)
        try:
            with complaints.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(*theirs.values(), *(() if lock is None else (lock,))),
                    # Ctrl-C is for us to turn into a clean power-down, not for QEMU.
                    start_new_session=True,
                )
        except OSError as error:
            raise EmulatorMissing(f"{command[0]} cannot be started: {error.strerror}.") from error
        finally:
            for _, their in pairs.values():
                their.close()
        stack.push_async_callback(_end, process)
        qmp = await _connect(ours["qmp"], process, complaints)
        stack.push_async_callback(_disconnect, qmp)
        lines = {name: await stack.enter_async_context(SerialLine.on(ours[name])) for name in names}
        yield Machine(process, qmp, lines)


@contextlib.asynccontextmanager
async def reachable(
    make_spec: Callable[[Forwards], MachineSpec], *, near: Forwards | None = None, lock: int | None = None
) -> AsyncIterator[tuple[Machine, Forwards]]:
    """Start a machine on free ports of this computer, the same as `near` where they are free.

    Where another program takes one before QEMU does, others are chosen.
    """
    for tries_left in (3, 2, 1, 0):
        forwards = ports.choose(*near.host_ports) if near else ports.choose()
        async with contextlib.AsyncExitStack() as stack:
            try:
                machine = await stack.enter_async_context(running(make_spec(forwards), lock=lock))
            except PortTaken:
                if not tries_left:
                    raise
                continue
            yield machine, forwards
            return


async def _connect(channel: socket.socket, process: asyncio.subprocess.Process, complaints: Path) -> QMPClient:
    qmp = QMPClient("machine")
    try:
        async with asyncio.timeout(_QMP_DEADLINE_S):
            await qmp.connect(channel)
    except (QMPError, TimeoutError) as error:
        # Give QEMU the moment it needs to say why it ends.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()
        last_words = _last_words(complaints)
        kind = PortTaken if "host forwarding rule" in last_words else MachineFailed
        raise kind(
            f"QEMU did not start: {last_words}.",
            hint=f"All it said is in {complaints}.",
        ) from error
    return qmp


def _last_words(complaints: Path) -> str:
    words = complaints.read_text(errors="replace").strip().splitlines()
    return words[-1] if words else "it does not answer"


async def _disconnect(qmp: QMPClient) -> None:
    # The reader reports the end of the stream as an error when QEMU ended first, which is how a power-down ends.
    with contextlib.suppress(EOFError, OSError, QMPError):
        await qmp.disconnect()


async def _end(process: asyncio.subprocess.Process) -> None:
    # It may have ended by itself without having been noticed yet.
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _credential_file(spec: MachineSpec, name: str) -> Path:
    return spec.log_folder / "credentials" / name


def _write_credentials(spec: MachineSpec) -> None:
    """Credentials go in by file, readable by their owner alone: a command line is readable by everybody."""
    folder = spec.log_folder / "credentials"
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, value in spec.credentials.items():
        path = _credential_file(spec, name)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            target.write(b"io.systemd.credential.binary:" + name.encode() + b"=" + base64.b64encode(value))

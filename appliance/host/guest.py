"""A virtual machine as its keeper starts it: the document it reads, and QEMU's command line (qemu-system-x86_64(1)).

It is a microvm: no firmware to speak of, no PCI, a kernel that is handed over. It boots the same /usr as the machine
around it, and has everything that is its own as systemd credentials (systemd.system-credentials(7)).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from appliance.errors import NOT_DECODED, InvalidInput

Accelerator = Literal["kvm", "tcg"]

EMULATOR = "qemu-system-x86_64"
BOOT = Path("/usr/lib/alpha-ren/guest")
KERNEL, INITRD = BOOT / "vmlinuz", BOOT / "initrd"

TARGET = "alpha-ren-guest.target"
JOURNAL_PORT = "journal"
"""The virtio port into which the guest writes its journal, an entry a line (journalctl(1), `--output=json`)."""

NETWORK_CREDENTIAL = "alpha-ren.network"
"""What `ip -batch` makes of the guest's network (ip(8))."""
RESOLV_CREDENTIAL = "alpha-ren.resolv"
UNIT_CREDENTIAL = "systemd.extra-unit."
"""With the unit's name behind it: its text."""

KVM = "kvm"
"""Name of the descriptor of /dev/kvm, where it is handed over; all others are disks, in their order."""

CODE_BUFFER_MB = 64
"""What QEMU keeps of translated code where it emulates the processor; without a limit a quarter of all memory."""
EMULATOR_MB = 160
"""What QEMU and its keeper need beside the guest's own memory."""


class Guest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a keeper is to start.

    `unit` is the guest's one service; `credentials` are files by the name that they have in the guest, relative ones
    in the keeper's own credentials directory; `stop_s` is how long the guest may take to power down. `qmp` is the
    socket at which whoever looks after the machine finds it.
    """

    name: str
    unit: str
    tap: str
    mac: str
    cpus: int
    memory_mb: int
    accelerator: Accelerator
    credentials: dict[str, str]
    qmp: str
    stop_s: float
    version: int = 1


class Hands(msgspec.Struct, frozen=True, kw_only=True):
    """The descriptors that QEMU is handed: its control channel, the journal's, the disks and whether they are files,
    and /dev/kvm where that is used.
    """

    qmp: int
    journal: int
    disks: tuple[tuple[int, bool], ...]
    kvm: int | None = None


def read(path: Path) -> Guest:
    """Return the document at `path`; raise InvalidInput where it is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Guest)
    except (OSError, *NOT_DECODED) as error:
        raise InvalidInput(f"The guest's document {path} cannot be used: {error}.") from error


def kernel_line(guest: Guest) -> str:
    """Return the guest's kernel command line; a guest whose kernel gives up ends (`-no-reboot`), and is made anew."""
    words = (
        "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t rw",
        f"systemd.unit={TARGET} systemd.wants={guest.unit} systemd.hostname={guest.name}",
        "systemd.show_status=no systemd.firstboot=off",
    )
    return " ".join(words)


def command_line(guest: Guest, hands: Hands, credentials: Mapping[str, Path], emulator: str = EMULATOR) -> list[str]:
    """Return QEMU's whole command line."""
    command = [
        emulator,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", guest.name),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"),
        *("-machine", "microvm,acpi=on,pit=off,pic=off,rtc=on"),
        *_processor(guest.accelerator, len(hands.disks)),
        *("-smp", str(guest.cpus), "-m", str(guest.memory_mb)),
        *("-kernel", str(KERNEL), "-initrd", str(INITRD), "-append", kernel_line(guest)),
        # What the kernel says when it gives up; it goes to the keeper's own output, and so to the journal.
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={hands.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-qmp", f"unix:{guest.qmp},server=on,wait=off"),
        *("-netdev", f"tap,id=net,ifname={guest.tap},script=no,downscript=no,vhost=off"),
        *("-device", f"virtio-net-device,netdev=net,mac={guest.mac}"),
        *("-device", "virtio-serial-device", "-chardev", f"socket,id=journal,fd={hands.journal}"),
        *("-device", f"virtserialport,chardev=journal,name={JOURNAL_PORT}"),
    ]
    for number, (descriptor, is_file) in enumerate(hands.disks):
        driver = "file" if is_file else "host_device"
        command += [
            *("-add-fd", f"fd={descriptor},set={number}"),
            *("-blockdev", f"driver={driver},node-name=disk{number},filename=/dev/fdset/{number},read-only=on"),
            *("-device", f"virtio-blk-device,drive=disk{number}"),
        ]
    if hands.kvm is not None:
        command += ["-add-fd", f"fd={hands.kvm},set={len(hands.disks)}"]
    for name, path in credentials.items():
        command += ["-fw_cfg", f"name=opt/io.systemd.credentials/{name},file={path}"]
    return command


def _processor(accelerator: Accelerator, kvm_set: int) -> tuple[str, ...]:
    if accelerator == "kvm":
        return ("-accel", f"kvm,device=/dev/fdset/{kvm_set}", "-cpu", "host")
    return ("-accel", f"tcg,thread=multi,tb-size={CODE_BUFFER_MB}", "-cpu", "max")

"""A virtual machine as its keeper starts it: the document it reads, and QEMU's command line (qemu-system-x86_64(1)).

It is a microvm: no firmware to speak of, no PCI, a kernel that is handed over. It boots the same /usr as the machine
around it, and has everything that is its own as systemd credentials (systemd.system-credentials(7)).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from appliance.errors import NOT_DECODED, InvalidInput
from appliance.host.accelerator import EMULATED_CPU, EMULATOR

Accelerator = Literal["kvm", "tcg"]

BOOT = Path("/usr/lib/alpha-ren/guest")
KERNEL, INITRD = BOOT / "vmlinux", BOOT / "initrd"

TARGET = "alpha-ren-guest.target"
JOURNAL_PORT = "journal"
"""The virtio port into which the guest writes its journal, an entry a line (journalctl(1), `--output=json`)."""

NETWORK_CREDENTIAL = "alpha-ren.network"
"""What `ip -batch` makes of the guest's network (ip(8))."""
RESOLV_CREDENTIAL = "alpha-ren.resolv"
UNIT_CREDENTIAL = "alpha-ren.unit"
UNIT = "alpha-ren-guest-server.service"
"""What the guest's one service is called in there, whoever it is; its text is a credential."""
LONGEST_CREDENTIAL = 28
"""A name in QEMU's fw_cfg has at most 55 characters (docs/specs/fw_cfg.rst), and this is what is left of them."""

GROUP, GROUP_NUMBER = "alpha-ren-guest", 415
"""Who may take hold of a guest's cable; the image fixes the number (sysusers.d)."""

KVM = "kvm"
"""Name of the descriptor of /dev/kvm, where it is handed over; all others are disks, in their order."""

CODE_BUFFER_MB = 128
"""What QEMU keeps of translated code where it emulates the processor; without a limit a quarter of all memory."""
EMULATOR_MB = 256
"""What QEMU and its keeper need beside the guest's own memory."""


class Guest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a keeper is to start.

    `credentials` are files by the name that they have in the guest, relative ones
    in the keeper's own credentials directory; `stop_s` is how long the guest may take to power down. `qmp` is the
    socket at which whoever looks after the machine finds it.
    """

    name: str
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


def kernel_line(guest: Guest, tsc_khz: int) -> str:
    """Return the guest's kernel command line; a guest whose kernel gives up ends (`-no-reboot`), and is made anew."""
    words = [
        # What comes out there is lines for a journal, so nobody is to reset a terminal.
        "console=ttyS0 TERM=dumb quiet panic=-1",
        # Seconds of an emulated processor that no server needs: self-tests, keys, a bus that there is none of.
        "cryptomgr.notests rcupdate.rcu_expedited=1 lsm=capability",
        "initcall_blacklist=init_encrypted,crypto_kdf108_init,jent_mod_init,pci_arch_init",
        f"systemd.unit={TARGET} systemd.hostname={guest.name} systemd.show_status=no",
    ]
    if guest.accelerator == "tcg" and tsc_khz:
        # On a busy machine the kernel's measurement against an emulated timer fails, and its clock is slow for good.
        words.append(f"tsc=reliable tsc_early_khz={tsc_khz}")
    return " ".join(words)


def tsc_khz(cpuinfo: str) -> int:
    """Return the rate of the processor's time stamp counter, which an emulated one shares, in kHz; 0 where unknown.

    In a virtual machine it is what /proc/cpuinfo calls the clock rate, and only there are processors emulated.
    """
    found = re.search(r"^cpu MHz\s*:\s*([0-9.]+)$", cpuinfo, re.MULTILINE)
    return round(float(found.group(1)) * 1000) if found else 0


def command_line(guest: Guest, hands: Hands, credentials: Mapping[str, Path], tsc_khz: int = 0) -> list[str]:
    """Return QEMU's whole command line; `tsc_khz` is 0 where the rate of the host's own counter is not known."""
    command = [
        EMULATOR,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", guest.name),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"),
        *("-machine", "microvm,acpi=on,auto-kernel-cmdline=off"),
        # Threads that read the disk count as tasks of the instance.
        *("-object", "main-loop,id=main,thread-pool-max=8"),
        *_processor(guest.accelerator, len(hands.disks)),
        *("-smp", str(guest.cpus), "-m", str(guest.memory_mb)),
        *("-kernel", str(KERNEL), "-initrd", str(INITRD), "-append", kernel_line(guest, tsc_khz)),
        # What the kernel says when it gives up; it goes to the keeper's own output, and so to the journal.
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={hands.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-qmp", f"unix:{guest.qmp},server=on,wait=off"),
        # The guest finds nothing by name: this is its first device, and the port the first of that.
        *("-device", "virtio-serial-device,max_ports=2", "-chardev", f"socket,id=journal,fd={hands.journal}"),
        *("-device", f"virtserialport,nr=1,chardev=journal,name={JOURNAL_PORT}"),
        *("-netdev", f"tap,id=net,ifname={guest.tap},script=no,downscript=no,vhost=off"),
        *("-device", f"virtio-net-device,netdev=net,mac={guest.mac}"),
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
    return ("-accel", f"tcg,thread=multi,tb-size={CODE_BUFFER_MB}", "-cpu", EMULATED_CPU)

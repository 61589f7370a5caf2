"""Which accelerator runs guests here: found out with a guest, never from the presence of a device.

A `/dev/kvm` may exist, open and create a vCPU, and then hang or fail on the first instruction that it does not emulate.
So a guest of 256 bytes goes the way of every x86-64 kernel (protected mode, page tables, long mode, FPU, SSE), and
reports through QEMU's `isa-debug-exit` device.
"""

import asyncio
import enum
import tempfile
import time
from pathlib import Path

import msgspec

from appliance.errors import ApplianceError

EMULATOR = "qemu-system-x86_64"
MACHINE_TYPE = "q35,smm=on"
PROBE_DEADLINE_S = 2.0
EMULATED_CPU = "qemu64,+rdrand,+npt"
"""A box on it is ready in three quarters of the time that the fullest processor takes (`max`), and can have guests."""

_REPORT = 0x15
_REPORT_PORT = 0x501
# isa-debug-exit ends QEMU with (value << 1) | 1.
_EXIT_CODE_OF_REPORT = (_REPORT << 1) | 1

# The last 256 bytes below 4 GiB, where an x86 CPU begins: offset, machine code and, for the reader, assembly (AT&T).
_GUEST = """
00 fa                       cli
01 2e660f0116a4ff           lgdtl %cs:0xffa4
08 0f20c0                   mov   %cr0, %eax
0b 0c01                     or    $1, %al                # protected mode
0d 0f22c0                   mov   %eax, %cr0
10 66ea18ffffff0800         ljmpl $8, $0xffffff18
18 66b81000                 mov   $16, %ax
1c 8ed8                     mov   %ax, %ds
1e c7050010000003200000     movl  $0x2003, 0x1000        # PML4[0] -> 0x2000
28 c7050020000003300000     movl  $0x3003, 0x2000        # PDPT[0] -> 0x3000
32 c7051820000003400000     movl  $0x4003, 0x2018        # PDPT[3] -> 0x4000
3c c7050030000083000000     movl  $0x83, 0x3000          # the first 2 MiB onto themselves
46 c705f84f00008300e0ff     movl  $0xffe00083, 0x4ff8    # the last 2 MiB below 4 GiB onto themselves
50 b800100000               mov   $0x1000, %eax
55 0f22d8                   mov   %eax, %cr3
58 0f20e0                   mov   %cr4, %eax
5b 660d2002                 or    $0x220, %ax            # PAE, OSFXSR
5f 0f22e0                   mov   %eax, %cr4
62 b9800000c0               mov   $0xc0000080, %ecx      # EFER
67 0f32                     rdmsr
69 80cc01                   or    $1, %ah                # LME
6c 0f30                     wrmsr
6e 0f20c0                   mov   %cr0, %eax
71 0d00000080               or    $0x80000000, %eax      # paging, and with it long mode
76 0f22c0                   mov   %eax, %cr0
79 ea80ffffff1800           ljmpl $24, $0xffffff80
80 9b                       fwait
81 dbe3                     fninit
83 b815000000               mov   $0x15, %eax
88 660f6ec0                 movd  %eax, %xmm0
8c 660f7e042500600000       movd  %xmm0, 0x6000
95 8b042500600000           mov   0x6000, %eax
9c 66ba0105                 mov   $0x501, %dx
a0 ee                       out   %al, %dx
a1 f4                       hlt
a2 ebfd                     jmp   0xa1
a4 1f00d0ffffff             GDT register: limit 31, base 0xffffffd0
d8 ffff0000009bcf00         GDT 8: 32-bit code
e0 ffff00000093cf00         GDT 16: data
e8 ffff0000009baf00         GDT 24: 64-bit code
f0 e90dff                   jmp   0x00                   # where the CPU begins
"""


class EmulatorMissing(ApplianceError):
    """QEMU, or firmware that it needs, is not installed."""

    code = "emulator-missing"
    hint = "On a workstation `scripts/bootstrap` installs QEMU; on a box this is a fault of the firmware."


class Accelerator(enum.Enum):
    """How QEMU executes the guest."""

    KVM = "kvm"
    TCG = "tcg"

    @property
    def arguments(self) -> tuple[str, ...]:
        """QEMU's arguments for it: with KVM the host's own CPU, otherwise `EMULATED_CPU`."""
        if self is Accelerator.KVM:
            return ("-accel", "kvm", "-cpu", "host")
        return ("-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU)


class Finding(msgspec.Struct, frozen=True):
    """What the probe found, and why; `emulated` where the processor that would run guests is itself emulated.

    On such a processor KVM is not tried before somebody wants guests there, and then `untried` is false.
    """

    accelerator: Accelerator
    reason: str
    emulated: bool = False
    untried: bool = False


def probe_rom() -> bytes:
    """The probe guest as a 64 KiB firmware image (the smallest that QEMU's `-bios` takes)."""
    rom = bytearray(65536)
    for line in _GUEST.strip().splitlines():
        offset, code = line.split()[:2]
        start = len(rom) - 256 + int(offset, 16)
        machine_code = bytes.fromhex(code)
        rom[start : start + len(machine_code)] = machine_code
    return bytes(rom)


def _write_probe(folder: Path) -> Path:
    rom = folder / "probe.rom"
    rom.write_bytes(probe_rom())
    return rom


async def run_guest(
    accelerator: Accelerator,
    emulator: str = EMULATOR,
    deadline_s: float = PROBE_DEADLINE_S,
    machine: str = MACHINE_TYPE,
) -> str:
    """Run the probe guest; return "" when it reported, otherwise one phrase that says what happened instead."""
    with tempfile.TemporaryDirectory(prefix="alpha-ren-probe-") as folder:
        rom = _write_probe(Path(folder))
        began = time.monotonic()
        try:
            process = await asyncio.create_subprocess_exec(
                emulator,
                *accelerator.arguments,
                *("-machine", machine, "-m", "16", "-nodefaults", "-display", "none", "-no-reboot"),
                *("-bios", str(rom), "-device", f"isa-debug-exit,iobase={_REPORT_PORT:#x},iosize=1"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise EmulatorMissing(f"{emulator} cannot be started: {error.strerror}.") from error
        try:
            async with asyncio.timeout(deadline_s):
                _, complaints = await process.communicate()
        except TimeoutError:
            return f"the probe guest gave no sign of life in {time.monotonic() - began:.0f} s"
        finally:
            # The guest is killed whether the deadline passed or the caller was cancelled.
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode == _EXIT_CODE_OF_REPORT:
        return ""
    lines = complaints.decode(errors="replace").strip().splitlines() or [f"QEMU ended with {process.returncode}"]
    return lines[-1].removeprefix("qemu-system-x86_64: ")


async def probe(
    emulator: str = EMULATOR, deadline_s: float = PROBE_DEADLINE_S, machine: str = MACHINE_TYPE
) -> Finding:
    """Run the guest under KVM; if it does not report within `deadline_s` seconds, the answer is TCG."""
    trouble = await run_guest(Accelerator.KVM, emulator, deadline_s, machine)
    if trouble:
        return Finding(Accelerator.TCG, f"KVM does not run guests here: {trouble}")
    return Finding(Accelerator.KVM, "the probe guest ran under KVM")

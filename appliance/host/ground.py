"""What virtual machines stand on here: what holds the image's /usr, and whether KVM runs guests."""

import asyncio
import logging
from pathlib import Path

import msgspec

from appliance.errors import NOT_DECODED
from appliance.host import accelerator
from appliance.host.accelerator import Accelerator, EmulatorMissing, Finding

log = logging.getLogger(__name__)

MOUNTS = Path("/proc/self/mountinfo")
LAID_OUT = Path("/srv/alpha-ren")
"""Where a lab lays images of /usr, which is a directory there: the tree's, and over it the working copy's."""
IMAGES = ("usr.erofs", "code.erofs")

DETECTOR = "systemd-detect-virt"
DETECTOR_S = 10.0
BY_QEMU = b"qemu"
"""What it calls a virtual machine of QEMU's without hardware acceleration (systemd-detect-virt(1))."""

EMULATED = "this machine's own processor is emulated"
EMULATED_PROBE_S = 60.0
"""It takes QEMU several seconds to start there."""

KVM_DEVICE = Path("/dev/kvm")
MACHINE_TYPE = "microvm"


def disks(mounts: Path = MOUNTS, laid_out: Path = LAID_OUT) -> tuple[str, ...]:
    """Return what a guest's disks are, the one with /usr first; none where /usr cannot be handed to a guest."""
    for line in mounts.read_text(encoding="utf-8").splitlines():
        # proc_pid_mountinfo(5): fields, then after a dash the type of the file system and its device.
        place, (kind, source) = line.split()[4], line.partition(" - ")[2].split()[:2]
        if place == "/usr" and kind == "erofs" and source.startswith("/dev/"):
            return (source,)
    return tuple(str(path) for path in (laid_out / name for name in IMAGES) if path.exists())


async def kvm(
    remembered: Path,
    device: Path = KVM_DEVICE,
    emulator: str = accelerator.EMULATOR,
    detector: str = DETECTOR,
    *,
    asked: bool = False,
) -> Finding:
    """Return which accelerator guests get, found with a guest once for every boot: `remembered` is where, in /run.

    A processor that is emulated may emulate the extensions for guests too. Guests are no gain there, so that KVM is
    tried only where somebody has `asked` for some; but it is far better than to emulate in what is emulated.
    """
    known = await asyncio.to_thread(_known, remembered, device)
    if known is not None and not (known.untried and asked):
        return known
    emulated = known is not None or await _is_emulated(detector)
    if emulated and not asked:
        finding = Finding(Accelerator.TCG, EMULATED, emulated=True, untried=True)
    else:
        finding = await _tried(emulator, emulated=emulated)
    log.info("%s", finding.reason)
    await asyncio.to_thread(remembered.write_bytes, msgspec.json.encode(finding))
    return finding


async def _tried(emulator: str, *, emulated: bool) -> Finding:
    deadline_s = EMULATED_PROBE_S if emulated else accelerator.PROBE_DEADLINE_S
    try:
        finding = await accelerator.probe(emulator, deadline_s, MACHINE_TYPE)
    except EmulatorMissing as error:
        finding = Finding(Accelerator.TCG, error.message)
    if not emulated:
        return finding
    return Finding(finding.accelerator, f"{EMULATED}; {finding.reason}", emulated=True)


async def _is_emulated(detector: str) -> bool:
    """Whether this machine's processor is QEMU's emulation; where nobody can tell, it is taken for a real one."""
    try:
        process = await asyncio.create_subprocess_exec(detector, "--vm", stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(DETECTOR_S):
            said, _ = await process.communicate()
    except (OSError, TimeoutError) as error:
        log.warning("%s does not tell what this machine is: %s", detector, error)
        return False
    return said.strip() == BY_QEMU


def _known(remembered: Path, device: Path) -> Finding | None:
    if not device.exists():
        return Finding(Accelerator.TCG, "this machine has no KVM")
    try:
        return msgspec.json.decode(remembered.read_bytes(), type=Finding)
    except (FileNotFoundError, *NOT_DECODED):
        return None

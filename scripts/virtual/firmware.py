"""The virtual machine's UEFI: code that enforces Secure Boot, and a variable store of the machine's own."""

import asyncio
from pathlib import Path

import msgspec

from appliance.host.accelerator import EmulatorMissing
from scripts.virtual.errors import ToolFailed

# Where Debian's package `ovmf` puts the build that keeps its variables behind SMM, as Secure Boot needs.
_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
# No keys in it: the machine begins in setup mode, and systemd-boot enrols the image's keys at its first boot.
_EMPTY_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
_TOOL_DEADLINE_S = 120.0


class Firmware(msgspec.Struct, frozen=True):
    """Paths of the UEFI code (read-only, raw) and of an empty variable store (raw)."""

    code: Path = _CODE
    empty_variables: Path = _EMPTY_VARIABLES

    def arguments(self, variables: Path) -> tuple[str, ...]:
        """QEMU's arguments for this firmware with the qcow2 file `variables` as its store."""
        return (
            *("-global", "driver=cfi.pflash01,property=secure,value=on"),
            *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={self.code}"),
            *("-drive", f"if=pflash,unit=1,format=qcow2,file={variables}"),
        )

    async def new_variables(self, target: Path) -> None:
        """Write an empty variable store to `target`, as qcow2 so that a snapshot can hold it."""
        for needed in (self.code, self.empty_variables):
            if not needed.exists():
                raise EmulatorMissing(f"The UEFI firmware {needed} is not installed.")
        await qemu_img("convert", "-f", "raw", "-O", "qcow2", str(self.empty_variables), str(target))


async def qemu_img(*arguments: str) -> str:
    """Run `qemu-img`; return what it printed, raise `ToolFailed` with its last words if it fails."""
    try:
        process = await asyncio.create_subprocess_exec(
            "qemu-img",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise EmulatorMissing(f"qemu-img cannot be started: {error.strerror}.") from error
    try:
        async with asyncio.timeout(_TOOL_DEADLINE_S):
            out, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise ToolFailed(f"qemu-img {arguments[0]} failed: {complaints.decode(errors='replace').strip()}.")
    return out.decode()

"""The process that keeps one virtual machine: starts QEMU, says when the guest serves, powers it down.

It is a unit of its own, so a supervisor that starts anew disturbs no guest. Whatever ends the guest, or takes it away
from its tap or its control channel, ends the keeper, and systemd starts both again.
"""

import asyncio
import contextlib
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from qemu.qmp import QMPClient, QMPError

from appliance import notify
from appliance.errors import ApplianceError
from appliance.host.guest import KVM, UNIT, Guest, Hands, command_line, read, tsc_khz
from appliance.host.guestjournal import STARTED, Entry, Journal, Lines, entry, is_told

log = logging.getLogger("appliance.host.keeper")

QMP_DEADLINE_S = 30.0
LOOK_EVERY_S = 2.0
QUIT_S = 2.0
"""From the word `quit` to the signal that cannot be refused."""
FIRST_DESCRIPTOR = 3
FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq")


class GuestEnded(ApplianceError):
    """The guest, or the emulator around it, is gone though nobody asked it to go."""

    code = "guest-ended"
    hint = "It is started again by itself; what the guest said last is in the journal above."


class NoEmulator(ApplianceError):
    """QEMU does not start, or what it needs is missing."""

    code = "no-emulator"
    hint = "This is a fault of the firmware: let servers run in namespaces (`isolation`), and report it."


class Keeper:
    """One guest, from its start to its end."""

    def __init__(self, guest: Guest, qmp: QMPClient, process: asyncio.subprocess.Process, began: float) -> None:
        self._guest = guest
        self._qmp = qmp
        self._process = process
        self._began = began
        self._journal = Journal(guest.name)
        self._untold = 0
        self._index = _index(guest.tap)

    async def keep(self, stream: socket.socket) -> None:
        """Keep the guest until cancelled, then power it down; raise GuestEnded when it goes before that."""
        with contextlib.closing(self._journal):
            async with asyncio.TaskGroup() as group:
                # It goes on while the guest powers down, whose last words matter most.
                group.create_task(self._hear(stream))
                try:
                    await self._watch()
                finally:
                    await self._power_down()

    async def _watch(self) -> None:
        ended = asyncio.ensure_future(self._process.wait())
        try:
            while not (await asyncio.wait([ended], timeout=LOOK_EVERY_S))[0]:
                await self._answers()
                if _index(self._guest.tap) != self._index:
                    raise GuestEnded(f"The guest {self._guest.name} has lost its cable: {self._guest.tap} is another.")
        finally:
            ended.cancel()
        raise GuestEnded(f"The guest {self._guest.name} has ended; QEMU's exit status is {self._process.returncode}.")

    async def _answers(self) -> None:
        try:
            async with asyncio.timeout(QMP_DEADLINE_S):
                await self._qmp.execute("query-status")
        except (QMPError, TimeoutError) as error:
            if self._process.returncode is None:
                raise GuestEnded(f"QEMU does not answer for {self._guest.name}: {error!r}.") from error

    async def _hear(self, stream: socket.socket) -> None:
        """Pass on the guest's journal until it ends."""
        reader, writer = await asyncio.open_connection(sock=stream)
        lines = Lines()
        with contextlib.closing(writer):
            while data := await reader.read(65536):
                for line in lines.feed(data):
                    if (found := entry(line)) is not None:
                        self._tell(found)

    def _tell(self, found: Entry) -> None:
        if is_told(found) and not self._journal.write(found):
            self._untold += 1
        elif self._untold:
            log.warning("%d lines of the guest were not taken by the journal", self._untold)
            self._untold = 0
        if found.message_id == STARTED and found.unit == UNIT:
            took_s = time.monotonic() - self._began
            # What the kernel did not see of it is QEMU's start and the way into the kernel.
            log.info("serves after %.1f s, %.1f s of them since its kernel began", took_s, found.at_s)
            notify.ready(f"a virtual machine ({self._guest.accelerator}), served after {took_s:.1f} s")

    async def _power_down(self) -> None:
        """Press the power button, and where that does not help within the time given, pull the plug."""
        if self._process.returncode is None:
            await self._ask("system_powerdown", self._guest.stop_s)
        if self._process.returncode is None:
            log.warning("the guest does not power down within %.0f s and is ended", self._guest.stop_s)
            await self._ask("quit", QUIT_S)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        with contextlib.suppress(EOFError, OSError, QMPError):
            await self._qmp.disconnect()

    async def _ask(self, command: str, deadline_s: float) -> None:
        """Give QEMU a command after which it ends, and wait for that."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._qmp.execute("cont")  # a guest that was paused hears nothing
                await self._qmp.execute(command)
                await self._process.wait()
        except TimeoutError:
            return
        except QMPError as error:
            # It may just have ended; if not, the next way is tried.
            log.info("QEMU did not take %s: %s", command, error)


@contextlib.asynccontextmanager
async def started(guest: Guest) -> AsyncIterator[tuple[Keeper, socket.socket]]:
    """Start QEMU and yield its keeper and the guest's journal; what still runs at the end is killed."""
    began = time.monotonic()
    (control, theirs), (stream, their_end) = socket.socketpair(), socket.socketpair()
    inherited = _inherited()
    hands = Hands(
        qmp=theirs.fileno(),
        journal=their_end.fileno(),
        disks=tuple((number, _is_file(number)) for name, number in inherited.items() if name != KVM),
        kvm=inherited.get(KVM),
    )
    if guest.accelerator == "kvm" and hands.kvm is None:
        raise NoEmulator("The unit does not hand over /dev/kvm.")
    folder = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
    credentials = {name: folder / path for name, path in guest.credentials.items()}
    command = command_line(guest, hands, credentials, await asyncio.to_thread(_tsc_khz))
    try:
        process = await asyncio.create_subprocess_exec(
            *command,  # ends with the unit's control group, whatever becomes of this process
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(hands.qmp, hands.journal, *inherited.values()),
        )
    except OSError as error:
        raise NoEmulator(f"{command[0]} cannot be started: {error}.") from error
    finally:
        theirs.close()
        their_end.close()
    try:
        qmp = QMPClient(guest.name)
        try:
            async with asyncio.timeout(QMP_DEADLINE_S):
                await qmp.connect(control)
        except (QMPError, TimeoutError) as error:
            raise NoEmulator(f"QEMU did not start for {guest.name}; it said why above.") from error
        yield Keeper(guest, qmp, process, began), stream
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _inherited() -> dict[str, int]:
    """Return the descriptors that systemd opened, by name (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    return {name: FIRST_DESCRIPTOR + number for number, name in enumerate(names)}


def _tsc_khz() -> int:
    """Return the rate of this machine's time stamp counter, 0 where its clock rate changes and says nothing of it."""
    return 0 if FREQUENCY.exists() else tsc_khz(Path("/proc/cpuinfo").read_text(encoding="utf-8"))


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _index(interface: str) -> int:
    """Return the number of an interface, which another one of the same name does not have; 0 where there is none."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


async def _main(path: Path) -> None:
    guest = read(path)
    async with started(guest) as (keeper, stream):
        await keeper.keep(stream)


def main() -> int:
    """Keep the guest of the document that is named on the command line; return the exit status."""
    # An emulator that ends is no error of its protocol's; what is one is said in our own words.
    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
    path = Path(sys.argv[1])
    return notify.run(lambda: _main(path))


if __name__ == "__main__":
    sys.exit(main())

"""A virtual machine as a test uses it: plain calls that return when the thing has happened, or raise at a deadline."""

import asyncio
import contextlib
import re
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from appliance.host.accelerator import Accelerator
from scripts.virtual.errors import MachineFailed
from scripts.virtual.firmware import Firmware
from scripts.virtual.machine import Ending, Machine, MachineSpec, reachable
from scripts.virtual.ports import LOOPBACK, Forwards, free_port
from scripts.virtual.readiness import Readiness, wait_until_ready
from scripts.virtual.serial import SerialLine
from scripts.virtual.storage import Storage
from tests.vm import agent

T = TypeVar("T")

BOOT_DEADLINE_S = 600.0
READY_DEADLINE_S = 600.0
STATUS_DEADLINE_S = 180.0
POWER_DOWN_DEADLINE_S = 120.0
UNPLUG_DEADLINE_S = 60.0
SLOTS = ("slot1", "slot2", "slot3")
"""What cards are plugged into; the first has the uplink's."""
OUTSIDE_HOST = "10.0.2.2"
"""This computer's loopback, as the machine sees it through QEMU's user-mode network."""

WATCH = """
import asyncio, sys
from appliance.supervisor.ask import SupervisorAway, SupervisorSilent, ask

async def main():
    while True:
        try:
            status = await ask("status", dict, deadline_s=60.0)
            if eval(sys.argv[1], {"status": status}):
                return
        except (SupervisorAway, SupervisorSilent):
            pass  # it starts anew
        await asyncio.sleep(0.5)

asyncio.run(main())
"""

_CONTROL_SEQUENCE = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|[()][0-9A-B]|[=>78c]|\][^\x07]*\x07)")


class _Loop:
    """An event loop in a thread, for as long as the context lasts."""

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="virtual-machine")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that has a deadline of its own."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


class VirtualMachine:
    """The image, booted with a test agent in it; `start` again after it ended boots the same disk."""

    def __init__(
        self, loop: _Loop, storage: Storage, log_folder: Path, accelerator: Accelerator, credentials: dict[str, bytes]
    ) -> None:
        self._loop = loop
        self._storage = storage
        self._log_folder = log_folder
        self._accelerator = accelerator
        self._credentials = credentials
        self._starts = 0
        self._requests = 0
        self._machine: Machine | None = None
        self._stack = contextlib.AsyncExitStack()
        self._forwards: Forwards | None = None
        self.console_log = log_folder

    @property
    def machine(self) -> Machine:
        """The running machine."""
        assert self._machine is not None, "the machine is not running"
        return self._machine

    @property
    def forwards(self) -> Forwards:
        """The ports of this computer that lead to it."""
        assert self._forwards is not None, "the machine was never started"
        return self._forwards

    @property
    def url(self) -> str:
        """Where the outside reaches the appliance."""
        return self.forwards.outside_url

    def start(self) -> None:
        """Power on; returns as soon as QEMU runs."""
        self._starts += 1
        self.console_log = self._log_folder / f"boot-{self._starts}"
        self._machine, self._forwards = self._loop.run(self._enter())

    async def _enter(self) -> tuple[Machine, Forwards]:
        # A snapshot remembers the URL it was started with, so the ports stay what they were.
        return await self._stack.enter_async_context(reachable(self._spec, near=self._forwards))

    def _spec(self, forwards: Forwards) -> MachineSpec:
        return MachineSpec(
            disk=self._storage.disk,
            variables=self._storage.variables,
            log_folder=self.console_log,
            accelerator=self._accelerator,
            network=forwards.arguments,
            credentials={
                **agent.credentials(),
                "alpha-ren.outside-url": forwards.outside_url.encode(),
                **self._credentials,
            },
            virtio_ports=(agent.PORT,),
            slots=SLOTS,
        )

    def close(self) -> None:
        """End the machine at once if it still runs."""
        self._machine = None
        self._loop.run(self._stack.aclose())

    def wait_for_agent(self, deadline_s: float = BOOT_DEADLINE_S, *, since: int = 0) -> str:
        """Wait until the box obeys; returns the id of its boot."""
        found = self._loop.run(self._agent.expect(rb"\{\"hello\"[^\n]*\}\n", deadline_s, since=since))
        return msgspec.json.decode(found.group(), type=agent.Hello).hello

    @property
    def _agent(self) -> SerialLine:
        return self.machine.lines[agent.PORT]

    def run(self, *argv: str, stdin: str = "", deadline_s: float = 60.0) -> agent.Completed:
        """Run a command as root on the box; returns how it ended."""
        self._requests += 1
        request = agent.Request(self._requests, list(argv), stdin, deadline_s)
        return self._loop.run(self._ask(request))

    async def _ask(self, request: agent.Request) -> agent.Completed:
        before = self._agent.position
        self._agent.write(msgspec.json.encode(request) + b"\n")
        pattern = rb'\{"number": %d,[^\n]*\}\n' % request.number
        found = await self._agent.expect(pattern, request.deadline_s + 30, since=before)
        return msgspec.json.decode(found.group(), type=agent.Completed)

    def output(self, *argv: str, deadline_s: float = 60.0) -> str:
        """Run a command that must succeed; returns what it printed, without the white space at its ends."""
        done = self.run(*argv, deadline_s=deadline_s)
        assert done.code == 0, f"{argv} ended with {done.code}: {done.out}{done.err}"
        return done.out.strip()

    def wait_for(self, shell: str, deadline_s: float = 120.0) -> None:
        """Wait until a shell condition holds on the box; `MachineFailed` at the deadline."""
        loop = f"until {shell}; do sleep 0.5; done"
        if self.run("sh", "-c", loop, deadline_s=deadline_s).code:
            raise MachineFailed(f"`{shell}` did not come true within {deadline_s:.0f} s.")

    def wait_for_status(self, condition: str, deadline_s: float = STATUS_DEADLINE_S) -> None:
        """Wait until a Python expression holds of `status`, the document; `MachineFailed` at the deadline.

        One process on the box does all the asking: to start one for each takes an emulated processor seconds.
        """
        done = self.run("python3", "-c", WATCH, condition, deadline_s=deadline_s)
        if done.code:
            raise MachineFailed(f"`{condition}` did not come true of the status in {deadline_s:.0f} s. {done.err}")

    def wait_until_ready(self, deadline_s: float = READY_DEADLINE_S) -> Readiness:
        """Wait until the appliance itself says that it is ready, asked through the uplink."""
        return self._loop.run(wait_until_ready(self.url, deadline_s, lambda _: None))

    def save(self, tag: str) -> None:
        """Snapshot the whole machine."""
        self._loop.run(self.machine.save(tag))

    def load(self, tag: str) -> None:
        """Go back to a snapshot."""
        self._loop.run(self.machine.load(tag))

    @property
    def is_running(self) -> bool:
        """Whether it is powered on."""
        return self._machine is not None

    @property
    def disk(self) -> Path:
        """The disk, to be touched only while the machine is off."""
        return self._storage.disk

    def write_to_disk(self, offset: int, length: int) -> None:
        """Overwrite bytes of the disk behind the running machine's back."""
        answer = self._loop.run(self.machine.monitor(f'qemu-io disk "write -P 0x5a {offset} {length}"'))
        # QEMU prints the success on its own output, and only what is wrong here.
        if answer.strip():
            raise MachineFailed(f"The disk could not be written: {answer.strip()}.")

    def back_to(self, tag: str) -> None:
        """Go back to a snapshot, in a new QEMU.

        An emulator never lets the guest's time stamp counter go back, so in the old one the guest would see a leap of
        as long as it ran since the snapshot, and systemd would find every watchdog starved.
        """
        if self._machine is not None:
            self.kill()
        self.start()
        self.load(tag)
        self._loop.run(self.machine.execute("cont"))

    def keep_journal(self, target: Path) -> None:
        """Write the journal of this boot to a file, if the machine is there to be asked."""
        if self._machine is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.run("journalctl", "-b", "-o", "short-monotonic", "--no-pager", deadline_s=120).out)

    def pause(self) -> None:
        """Stop its processors until the next `back_to`, so that it takes no time from what else runs here."""
        if self._machine is not None:
            self._loop.run(self.machine.execute("stop"))

    def forward(self, guest_port: int) -> int:
        """Let a free port of this computer's loopback lead to a TCP port of its uplink; returns that port."""
        port = free_port(guest_port)
        answer = self._loop.run(self.machine.monitor(f"hostfwd_add uplink tcp:{LOOPBACK}:{port}-:{guest_port}"))
        if answer.strip():
            raise MachineFailed(f"The port {port} does not lead to the machine: {answer.strip()}.")
        return port

    def execute(self, command: str, **arguments: object) -> object:
        """Run a QMP command; an underscore in an argument's name stands for the hyphen that QEMU may want there."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._loop.run(self.machine.execute(command, named))

    def plug(self, card: str, cable: str, slot: str, driver: str = "virtio-net-pci", **properties: object) -> None:
        """Plug a network card into a slot, and its cable into it."""
        self.execute("device_add", id=card, driver=driver, netdev=cable, bus=slot, **properties)

    def unplug(self, card: str) -> None:
        """Take a network card out; returns when the box has let it go."""
        self._loop.run(self.machine.unplug(card, UNPLUG_DEADLINE_S))

    def status(self) -> dict[str, Any]:
        """What the box says of itself: `alpha-ren status --json`."""
        answer: dict[str, Any] = msgspec.json.decode(
            self.output("alpha-ren", "status", "--json", deadline_s=STATUS_DEADLINE_S)
        )
        return answer

    def power_down(self, deadline_s: float = POWER_DOWN_DEADLINE_S) -> Ending:
        """Press the power button, wait for the end."""
        ending = self._loop.run(self.machine.power_down(deadline_s))
        self.close()
        return ending

    def kill(self) -> None:
        """End QEMU at once."""
        self._loop.run(self.machine.kill())
        self.close()

    def type(self, keys: bytes) -> None:
        """Type on the serial console."""
        self._loop.loop.call_soon_threadsafe(self.machine.console.write, keys)

    def expect_on_console(self, pattern: bytes, deadline_s: float = 60.0, *, since: int = 0) -> re.Match[bytes]:
        """Wait for a pattern in the raw bytes of the serial console."""
        return self._loop.run(self.machine.console.expect(pattern, deadline_s, since=since))

    def console_position(self) -> int:
        """A mark on the console, to wait for what comes after it."""
        return self.machine.console.position

    def console_text(self, since: int = 0) -> str:
        """What the serial console showed, with control sequences turned into blanks."""
        return _CONTROL_SEQUENCE.sub(b" ", self.machine.console.since(since)).decode(errors="replace")

    def screenshot(self, target: Path) -> None:
        """A picture (PNG) of the first screen."""
        self._loop.run(self.machine.execute("screendump", {"filename": str(target), "format": "png"}))


def lives(status: dict[str, Any]) -> dict[str, tuple[int, float]]:
    """How often each unit was restarted, and since when it runs, from a status."""
    return {unit["name"]: (unit["restarts"], unit["since"]) for unit in status["units"]}


@contextlib.contextmanager
def virtual_machine(
    image: Path, folder: Path, log_folder: Path, accelerator: Accelerator, credentials: dict[str, bytes] | None = None
) -> Iterator[VirtualMachine]:
    """A machine with a new disk of its own, not yet started; it is gone when the context ends."""
    storage = Storage(folder)
    with _Loop() as loop, storage.lock():
        loop.run(storage.prepare(image, Firmware(), fresh=True))
        machine = VirtualMachine(loop, storage, log_folder, accelerator, credentials or {})
        try:
            yield machine
        finally:
            machine.close()

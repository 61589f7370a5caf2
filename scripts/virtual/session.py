"""One run of the appliance: started, shown or checked, and switched off again in every case."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

import msgspec

from appliance.host import accelerator
from appliance.host.accelerator import Accelerator
from scripts.virtual import image, terminal
from scripts.virtual.errors import MachineFailed, NotReady
from scripts.virtual.firmware import Firmware
from scripts.virtual.machine import Ending, Machine, MachineSpec, reachable
from scripts.virtual.ports import Forwards
from scripts.virtual.readiness import Readiness, wait_until_ready
from scripts.virtual.storage import Storage

T = TypeVar("T")

POWER_DOWN_DEADLINE_S = 90.0
# The power button again after this time: a guest still in its boot loader hears nothing.
_PRESS_EVERY_S = 10.0


class Report(msgspec.Struct, frozen=True):
    """The JSON line of `--until-ready`; `boot_s` holds seconds per phase, `total` of them from power-on to ready.

    What the box itself cannot see, mostly the time before its kernel, is `power-on`.
    """

    ready: bool
    boot_s: dict[str, float]
    accelerator: str
    image_mb: float


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a run; `deadline_s` is how long the appliance may take to become ready."""

    image: Path
    folder: Path
    fresh: bool = False
    cpus: int = 2
    memory_mib: int = 2048
    deadline_s: float = 900.0


class Session:
    """A machine that runs, and the signals that end it."""

    def __init__(self, machine: Machine, chosen: Accelerator, forwards: Forwards, log_folder: Path) -> None:
        self.machine = machine
        self.accelerator = chosen
        self.forwards = forwards
        self.began = time.monotonic()
        self.console_log = log_folder / "console.log"
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    def stop(self) -> None:
        """Ask for the end: first a clean power-down, and at the second time an immediate one."""
        (self._hurry if self._stop.is_set() else self._stop).set()

    async def unless_ended(self, work: Coroutine[None, None, T]) -> T | None:
        """The result of `work`, or None if a signal came first; `MachineFailed` if the machine ended first."""
        task = asyncio.create_task(work)
        end = asyncio.create_task(self.until_stopped())
        try:
            await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if (ending := end.result()) is not None:
                raise MachineFailed(
                    f"The machine ended by itself (QEMU's exit code {ending.exit_code}).",
                    hint=f"Its console log is {self.console_log}.",
                )
            return None
        finally:
            for one in (task, end):
                one.cancel()
            await asyncio.gather(task, end, return_exceptions=True)

    async def until_stopped(self) -> Ending | None:
        """Wait for a signal (None) or for the machine to end by itself."""
        ended = asyncio.ensure_future(self.machine.wait())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else None
        finally:
            for one in (ended, stopped):
                one.cancel()
            await asyncio.gather(ended, stopped, return_exceptions=True)

    async def power_down(self) -> Ending:
        """Press the power button until the guest is off; pull the plug at the deadline or at the second signal."""
        buttons = asyncio.create_task(self._press_power_button())
        hurry = asyncio.create_task(self._hurry.wait())
        ended = asyncio.create_task(self.machine.wait())
        try:
            async with asyncio.timeout(POWER_DOWN_DEADLINE_S):
                await asyncio.wait({hurry, ended}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        finally:
            for task in (buttons, hurry):
                task.cancel()
            await asyncio.gather(buttons, hurry, return_exceptions=True)
        await self.machine.kill()
        return await ended

    async def _press_power_button(self) -> None:
        # QEMU may end while it is being asked, which is what this is for.
        with contextlib.suppress(MachineFailed):
            while True:
                await self.machine.execute("system_powerdown")
                await asyncio.sleep(_PRESS_EVERY_S)


@contextlib.asynccontextmanager
async def started(request: Request, tell: TextIO) -> AsyncIterator[Session]:
    """Start the appliance; what goes on meanwhile is told line by line."""
    finding = await accelerator.probe()
    print(f"accelerator: {finding.accelerator.value} ({finding.reason})", file=tell, flush=True)
    storage = Storage(request.folder)
    firmware = Firmware()
    with storage.lock() as lock:
        origin = await storage.prepare(request.image, firmware, fresh=request.fresh)
        print(f"disk: {origin.value} ({storage.disk})", file=tell, flush=True)

        def spec(forwards: Forwards) -> MachineSpec:
            return MachineSpec(
                disk=storage.disk,
                variables=storage.variables,
                log_folder=request.folder,
                accelerator=finding.accelerator,
                firmware=firmware,
                cpus=request.cpus,
                memory_mib=request.memory_mib,
                network=forwards.arguments,
                credentials={"alpha-ren.outside-url": forwards.outside_url.encode()},
            )

        async with reachable(spec, lock=lock) as (machine, forwards):
            session = Session(machine, finding.accelerator, forwards, request.folder)
            with _signals(session):
                yield session


@contextlib.contextmanager
def _signals(session: Session) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in caught:
        loop.add_signal_handler(number, session.stop)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


def facts(session: Session, request: Request) -> list[str]:
    """What a person must know to use the machine, one fact a line."""
    forwards = session.forwards
    return [
        f"console: {forwards.outside_url}",
        f"http: 127.0.0.1:{forwards.http.host_port} (redirects)",
        f"vpn: 127.0.0.1:{forwards.vpn.host_port}/udp",
        f"state: {request.folder}",
        f"log: {session.console_log}",
    ]


async def run_attached(request: Request) -> int:
    """Run with this terminal as the local console; returns the exit code."""
    async with started(request, sys.stdout) as session:
        print("\n".join(facts(session, request)))
        print(
            f"keys: {terminal.ESCAPE_NAME} or Ctrl-C switches the machine off; every other key goes to it", flush=True
        )
        async with terminal.attached(session.machine.console, session.stop):
            ended = await session.until_stopped()
        print("\n".join(facts(session, request)))
        return await _switched_off(session, ended, sys.stdout)


async def run_plain(request: Request) -> int:
    """Run without a terminal: the facts as lines, then until a signal; returns the exit code."""
    async with started(request, sys.stdout) as session:
        print("\n".join(facts(session, request)), flush=True)
        announcing = asyncio.create_task(_announce(session, request))
        try:
            ended = await session.until_stopped()
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)
        return await _switched_off(session, ended, sys.stdout)


async def _announce(session: Session, request: Request) -> None:
    try:
        await wait_until_ready(session.forwards.outside_url, request.deadline_s, lambda line: print(line, flush=True))
        print(f"ready: {time.monotonic() - session.began:.1f} s after power-on", flush=True)
    except NotReady as error:
        # The machine goes on: a person may look into why.
        print(f"not ready: {error}", flush=True)


async def run_until_ready(request: Request) -> int:
    """Boot, wait for ready, print one JSON line, switch off; returns the exit code."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    async with started(request, sys.stderr) as session:
        tell("\n".join(facts(session, request)))
        try:
            answer = await session.unless_ended(
                wait_until_ready(session.forwards.outside_url, request.deadline_s, tell),
            )
            total = time.monotonic() - session.began
        except NotReady as error:
            tail = session.machine.console.since(0)[-1500:].decode(errors="replace")
            tell(f"--- the local console at the end ---\n{tail}\n---")
            await session.power_down()
            raise NotReady(
                error.message, hint=f"The whole console is in {session.console_log}; {_HOW_TO_LOOK}"
            ) from error
        ending = await session.power_down()
    if answer is None:
        return 130
    if not ending.by_guest:
        raise MachineFailed(f"The guest did not switch itself off within {POWER_DOWN_DEADLINE_S:.0f} s.")
    print(msgspec.json.encode(_report(answer, total, session, request)).decode(), flush=True)
    return 0


_HOW_TO_LOOK = "`make run` boots the same machine again, and its local screen shows the last error."


def _report(answer: Readiness, total: float, session: Session, request: Request) -> Report:
    unseen = max(0.0, total - sum(answer.boot_s.values()))
    return Report(
        ready=True,
        boot_s={"power-on": round(unseen, 3), **answer.boot_s, "total": round(total, 3)},
        accelerator=session.accelerator.value,
        image_mb=image.size_mb(request.image),
    )


async def _switched_off(session: Session, ended: Ending | None, tell: TextIO) -> int:
    if ended is None:
        print("switching off…", file=tell, flush=True)
        ended = await session.power_down()
    if ended.by_guest:
        print("switched off", file=tell, flush=True)
        return 0
    print("ended without a clean power-down", file=tell, flush=True)
    return 1

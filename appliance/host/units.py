"""systemd over D-Bus (org.freedesktop.systemd1(5)): units written to /run, started, reloaded, watched."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec
from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusError

from appliance.errors import NOT_DECODED, ApplianceError, DeadlinePassed, Unavailable
from appliance.host.files import Contents
from appliance.host.netns import Namespaces
from appliance.topology import HOST, Loaded, Unit, UnitFact

log = logging.getLogger(__name__)

SYSTEMD = "org.freedesktop.systemd1"
OBJECT = "/org/freedesktop/systemd1"
MANAGER = f"{SYSTEMD}.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
CALL_DEADLINE_S = 15.0
JOB_DEADLINE_S = 60.0

MOST_CALLS = 64
"""How many calls wait for their answers at once: a socket that takes no more would be the end of the connection."""


class NoSystemBus(Unavailable):
    """The system bus does not answer, so units can be neither seen nor started."""

    code = "no-system-bus"
    hint = "The units dbus.socket and dbus-broker.service must be active; `journalctl -b` says why they are not."


class UnitFailed(ApplianceError):
    """A unit could not be started, stopped or reloaded."""

    code = "unit-failed"
    hint = "`alpha-ren logs COMPONENT` has what it said; systemd starts it again."


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What systemd said of a unit when it was asked last."""

    state: str
    read: bool = True
    main: int = 0
    restarts: int = 0
    since: float = 0.0
    memory_mb: float = 0.0


class Units:
    """The units of ours. `changed` is called with a sentence whenever one of them changes its state."""

    def __init__(
        self,
        namespaces: Namespaces,
        mark: str,
        changed: Callable[[str], None],
        directory: Path = Path("/run/systemd/system"),
        loaded: Path = Path("/run/alpha-ren/.loaded"),
    ) -> None:
        self._namespaces = namespaces
        self._mark = mark
        self._changed = changed
        self.directory = directory
        self._loaded = loaded
        self._bus = MessageBus(bus_type=BusType.SYSTEM)
        self._jobs: dict[str, asyncio.Future[str]] = {}
        self._ours: set[str] = set()
        self._known: dict[str, Known] = {}
        self._told: set[str] = set()
        self._contents = Contents()
        self._room = asyncio.Semaphore(MOST_CALLS)

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                await self._bus.connect()
        except (OSError, DBusError, EOFError, TimeoutError) as error:
            raise NoSystemBus(f"The system bus does not answer: {error}.") from error
        self._bus.add_message_handler(self._signal)
        rules = (
            f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'",
            f"type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',path_namespace='{OBJECT}/unit',arg0='{SYSTEMD}.Unit'",
        )
        for rule in rules:
            await self._call(
                "AddMatch",
                "s",
                [rule],
                destination="org.freedesktop.DBus",
                interface="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
            )
        await self._call("Subscribe")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._bus.disconnect()
        await self._ended()

    async def lost(self) -> None:
        """Raise NoSystemBus when the bus is gone, which only a restart of this process mends."""
        await self._ended()
        raise NoSystemBus("The system bus is gone.")

    async def _ended(self) -> None:
        with suppress(EOFError, OSError):
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast leaves it unannotated

    async def observe(self) -> tuple[UnitFact, ...]:
        """Return our units: those with our mark in the directory of units made at run time.

        systemd is asked again only about those that it has told of since.
        """
        texts = await asyncio.to_thread(self._texts)
        self._ours = set(texts)
        asked = {name for name in texts if name in self._told or name not in self._known}
        # Whatever it tells from here on makes them be asked about once more.
        self._told -= asked
        try:
            known = await self._ask(asked) if asked else {}
        except BaseException:
            self._told |= asked
            raise
        self._known = {name: each for name, each in (self._known | known).items() if name in texts}
        return await asyncio.to_thread(
            lambda: tuple(self._fact(name, text, self._known[name]) for name, text in sorted(texts.items()))
        )

    def forget(self) -> None:
        """Ask systemd about all units the next time."""
        self._known = {}
        self._contents.forget()

    def write(self, units: Iterable[Unit]) -> None:
        """Put the units' texts in place, each in one step; systemd sees them at the next `reload_manager`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for unit in units:
            candidate = self.directory / f".{unit.name}.new"
            candidate.write_text(unit.text, encoding="utf-8")
            candidate.rename(self.directory / unit.name)

    async def reload_manager(self) -> None:
        """Let systemd read all units anew; nothing that runs is disturbed."""
        await self._call("Reload", deadline_s=JOB_DEADLINE_S)

    async def start(self, unit: Unit, loaded: Loaded) -> None:
        """Queue its start and return; whether it came up shows in its state."""
        await self._run("StartUnit", unit, loaded)

    async def restart(self, unit: Unit, loaded: Loaded) -> None:
        """Queue its restart and return; whether it came up shows in its state."""
        await self._run("RestartUnit", unit, loaded)

    async def reload(self, unit: Unit, loaded: Loaded, deadline_s: float = JOB_DEADLINE_S) -> None:
        """Reload it and wait until it has; a unit that cannot reload is restarted.

        Raise UnitFailed or DeadlinePassed.
        """
        await self._job("ReloadOrRestartUnit", unit.name, deadline_s)
        self._remember(unit.name, loaded)

    async def remove(self, name: str, deadline_s: float = JOB_DEADLINE_S) -> None:
        """Stop it, wait until it has, and take its text away. Raise UnitFailed or DeadlinePassed."""
        await self._job("StopUnit", name, deadline_s)
        # One that had to be killed would stay known as failed, in no slice of ours, and its successor be refused.
        await self._call("ResetFailedUnit", "s", [name], may_fail=True)
        for path in (self.directory / name, self._loaded / f"{name}.json"):
            path.unlink(missing_ok=True)
        await self.reload_manager()

    async def stopping(self) -> bool:
        """Whether the machine is going down, when what stops is meant to stop."""
        return bool(await self._get(OBJECT, MANAGER, "SystemState") == "stopping")

    async def timestamps(self) -> dict[str, float]:
        """Return systemd's boot time stamps in seconds of the monotonic clock, 0 where a phase did not happen
        (bootup(7)).

        `FirmwareTimestampMonotonic` and `LoaderTimestampMonotonic` count backwards from the kernel's start.
        """
        names = ("Firmware", "Loader", "InitRD", "Userspace", "Finish")
        values = await asyncio.gather(*(self._get(OBJECT, MANAGER, f"{name}TimestampMonotonic") for name in names))
        return {name.lower(): int(value or 0) / 1e6 for name, value in zip(names, values, strict=True)}

    def _texts(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in self.directory.glob("alpha-ren-*"):
            read = self._contents.of(path) if path.suffix in (".service", ".slice") and path.is_file() else None
            if read is not None and read[0].startswith(self._mark):
                found[path.name] = read[0]
        return found

    async def _ask(self, names: Iterable[str]) -> dict[str, Known]:
        (rows,) = await self._call("ListUnitsByPatterns", "asas", [[], sorted(names)])
        places = {row[0]: (row[3], row[6], row[2] == "loaded") for row in rows}
        nowhere = ("inactive", "", True)
        known = await asyncio.gather(*(self._known_of(name, *places.get(name, nowhere)) for name in names))
        return dict(zip(names, known, strict=True))

    async def _known_of(self, name: str, state: str, path: str, read: bool) -> Known:
        if not path or not name.endswith(".service"):
            return Known(state=state, read=read)
        service = f"{SYSTEMD}.Service"
        main, restarts, memory, since = await asyncio.gather(
            self._get(path, service, "MainPID"),
            self._get(path, service, "NRestarts"),
            self._get(path, service, "MemoryCurrent"),
            self._get(path, f"{SYSTEMD}.Unit", "ActiveEnterTimestamp"),
        )
        used = int(memory or 0)
        return Known(
            state=state,
            read=read,
            main=int(main or 0),
            restarts=int(restarts or 0),
            since=int(since or 0) / 1e6,
            # The highest number is systemd's word for "not counted".
            memory_mb=0.0 if used == 2**64 - 1 else round(used / 2**20, 1),
        )

    def _fact(self, name: str, text: str, known: Known) -> UnitFact:
        return UnitFact(
            name=name,
            text=text,
            state=known.state,
            loaded=self._recall(name),
            orphan=known.state == "active" and self._is_orphan(text, known.main),
            unread=not known.read,
            restarts=known.restarts,
            since=known.since,
            memory_mb=known.memory_mb,
        )

    def _is_orphan(self, text: str, main: int) -> bool:
        """Whether the main process is in another network namespace than the one that has its name now.

        One in the host's is none: it was started a moment ago and has not entered its own yet.
        """
        prefix = "NetworkNamespacePath="
        wanted = next((line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)), "")
        if not wanted or not main:
            return False
        try:
            lives_in = os.stat(f"/proc/{main}/ns/net").st_ino
            return lives_in not in (self._namespaces.inode(Path(wanted).name), self._namespaces.inode(HOST))
        except (FileNotFoundError, ProcessLookupError):
            return False

    def _remember(self, name: str, loaded: Loaded) -> None:
        self._told.add(name)
        self._loaded.mkdir(parents=True, exist_ok=True, mode=0o700)
        candidate = self._loaded / f".{name}.new"
        candidate.write_bytes(msgspec.json.encode(loaded))
        candidate.rename(self._loaded / f"{name}.json")

    def _recall(self, name: str) -> Loaded | None:
        read = self._contents.of(self._loaded / f"{name}.json")
        try:
            return None if read is None else msgspec.json.decode(read[0], type=Loaded)
        except NOT_DECODED:
            return None

    async def _run(self, method: str, unit: Unit, loaded: Loaded) -> None:
        try:
            await self._call(method, "ss", [unit.name, "replace"])
        except UnitFailed as error:
            log.warning("%s It is ended and read anew.", error.message)
            # While its text was gone, systemd took it for a unit without settings. One that runs would change its
            # slice with the text, so that systemd cannot read it before it has ended.
            await self._job("StopUnit", unit.name, JOB_DEADLINE_S)
            await self.reload_manager()
            await self._call("StartUnit", "ss", [unit.name, "replace"])
        self._remember(unit.name, loaded)

    async def _job(self, method: str, name: str, deadline_s: float) -> None:
        """Run a job and wait for its end (the signal JobRemoved)."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        # The answer with the job's path may come after its end, so ends are noted by the unit's name.
        self._jobs[name] = done
        try:
            async with asyncio.timeout(deadline_s):
                await self._call(method, "ss", [name, "replace"])
                result = await done
        except TimeoutError as error:
            raise DeadlinePassed(f"{name} did not get there within {deadline_s:.0f} seconds ({method}).") from error
        finally:
            self._jobs.pop(name, None)
        if result not in ("done", "skipped"):
            raise UnitFailed(f"systemd could not do it: {method} of {name} ended as {result}.")

    def _signal(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "JobRemoved":
            _, _, name, result = message.body
            if (waiting := self._jobs.get(name)) is not None and not waiting.done():
                waiting.set_result(result)
            if name in self._ours and result not in ("done", "canceled"):
                self._changed(f"a job of {name} ended as {result}")
        elif message.member == "PropertiesChanged" and (name := unit_of(message.path or "")) in self._ours:
            state = message.body[1].get("ActiveState")
            self._told.add(name)
            if state is not None:
                self._changed(f"{name} is {state.value}")

    async def _get(self, path: str, interface: str, name: str) -> Any:
        reply = await self._call("Get", "ss", [interface, name], path=path, interface=PROPERTIES, may_fail=True)
        return reply[0].value if reply else None

    async def _call(
        self,
        member: str,
        signature: str = "",
        body: Iterable[Any] = (),
        *,
        destination: str = SYSTEMD,
        path: str = OBJECT,
        interface: str = MANAGER,
        deadline_s: float = CALL_DEADLINE_S,
        may_fail: bool = False,
    ) -> list[Any]:
        message = Message(
            destination=destination, path=path, interface=interface, member=member, signature=signature, body=list(body)
        )
        try:
            async with self._room, asyncio.timeout(deadline_s):
                reply = await self._bus.call(message)
        except TimeoutError as error:
            raise DeadlinePassed(f"systemd did not answer {member} within {deadline_s:.0f} seconds.") from error
        except (EOFError, OSError) as error:
            raise NoSystemBus(f"The system bus is gone: {error}.") from error
        if reply.message_type is MessageType.ERROR:
            if may_fail:
                return []
            raise UnitFailed(f"systemd refused {member}: {reply.body[0] if reply.body else reply.error_name}.")
        return list(reply.body)


def unit_of(path: str) -> str:
    """Return the unit's name from its D-Bus path, in which every odd character is `_` and two hex digits."""
    parts = path.rpartition("/")[2].split("_")
    return parts[0] + "".join(chr(int(part[:2], 16)) + part[2:] for part in parts[1:])

"""A cluster on the loopback interface: the real broker and component processes, with their real rights."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from appliance.arclst import spec as arclst
from appliance.arhav import spec as arhav
from appliance.arsrv import spec as arsrv
from appliance.component import ComponentSpec
from appliance.config import Config, QueueLimit
from appliance.contracts.access import Access, AccessList, Rights
from appliance.contracts.service import CURVE_CREDENTIAL, SERVER_KEYS_CREDENTIAL, SERVICE_FILE, Leg, ServiceContext
from appliance.queue.client import Connection, QueueClient, RemoteError, generate_keys
from appliance.queue.errors import NOT_SERVED, SERVER_LOST
from appliance.queue.settings import BrokerSettings
from tests.ports import free_port

T = TypeVar("T")

DEADLINE_S = 30.0
EVERYTHING = Rights(publish=("*",), consume=("*",), emit=("*",), subscribe=("*",), call=("*",), serve=("*",))
TESTER = "tester"
LEASE_S = 2.0
LEG = Leg(v4="127.0.0.1", v6="::1")
INNER = "10.156.0.0/16"


async def until(what: Callable[[], Awaitable[T | None]], deadline_s: float = DEADLINE_S) -> T:
    """Return the first value of `what` that is not None; raise TimeoutError at the deadline."""
    async with asyncio.timeout(deadline_s):
        while (found := await what()) is None:  # noqa: ASYNC110  (other processes set no event of ours)
            await asyncio.sleep(0.02)
        return found


async def served(queue: QueueClient, name: str) -> None:
    """Return once somebody serves the call `name`; asking has no effect, since the body is not one that fits."""

    async def asked() -> bool | None:
        try:
            await queue.call(name, b"\xc1", bytes)
        except RemoteError as error:
            return None if error.problem.code in (NOT_SERVED, SERVER_LOST) else True
        return True

    await until(asked)


class Cluster:
    """Processes by instance name: `queue`, `arclst`, `arhav`, `arsrv-1`, `arsrv-2`. Leaving it ends all of them."""

    def __init__(
        self,
        folder: Path,
        *,
        selftest_entry: str = "http://127.0.0.1:9/hooks/_selftest",
        limits: tuple[QueueLimit, ...] = (),
    ) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._notify: list[socket.socket] = []
        # Socket addresses are limited to 107 bytes, which pytest's folders come near to.
        self._sockets = tempfile.TemporaryDirectory(prefix="alpha-ren-")
        self.ports = {"arsrv-1": free_port(), "arsrv-2": free_port(), "arhav": free_port()}
        self._endpoint = f"ipc://{self._sockets.name}/broker"
        specs = (arclst.declare(Config()), arhav.declare(Config()), arsrv.declare(Config()))
        self._rights = {instance.name: instance.rights for spec in specs for instance in spec.instances}
        self._modules = _modules(specs)
        self._keys = {name: generate_keys() for name in ("queue", TESTER, "supervisor", *self._rights)}
        self._settings: dict[str, msgspec.Struct] = {
            "queue": BrokerSettings(
                bind=(self._endpoint,),
                access_file=str(folder / "access.json"),
                lease_s=LEASE_S,
                heartbeat_s=0.5,
                limits=limits,
            ),
            "arclst": arclst.Settings(egress_ports=tuple(range(1, 65000))),
            "arhav": arhav.Settings(entry=selftest_entry, port=self.ports["arhav"]),
            **{
                name: arsrv.Settings(port=self.ports[name], inner=(INNER,), forbidden=())
                for name in ("arsrv-1", "arsrv-2")
            },
        }

    def __enter__(self) -> Self:
        entries = [
            Access(name=name, public_key=self._keys[name].public, rights=what, origin=_component(name))
            for name, what in self._rights.items()
        ]
        entries += [
            Access(name=name, public_key=self._keys[name].public, rights=EVERYTHING) for name in (TESTER, "supervisor")
        ]
        (self._folder / "access.json").write_bytes(msgspec.json.encode(AccessList(entries=tuple(entries))))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.terminate()
        try:
            codes = {name: process.wait(DEADLINE_S) for name, process in self._processes.items()}
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait()
            for notify in self._notify:
                notify.close()
            self._sockets.cleanup()
        if error is None:
            assert set(codes.values()) <= {0}, f"not every process ended cleanly: {codes}\n{self.logs()}"
        else:
            error.add_note(self.logs())

    async def start(self, *instances: str) -> None:
        """Start processes and return when each has said that it is ready."""
        for name in instances:
            await asyncio.to_thread(self._start, name)

    def kill(self, instance: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, by default the one that leaves no time for anything, and wait for the end."""
        process = self._processes.pop(instance)
        process.send_signal(number)
        process.wait(DEADLINE_S)

    async def stop(self, instance: str) -> None:
        """Ask a process to end, as systemd does, and return when it has, cleanly."""
        process = self._processes.pop(instance)
        process.terminate()
        assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0, self.log(instance)

    @property
    def running(self) -> frozenset[str]:
        """Which instances were started and not killed."""
        return frozenset(self._processes)

    def client(self, name: str = TESTER) -> QueueClient:
        """Return a client that may do everything, or has the rights of an instance."""
        return QueueClient(Connection(self._endpoint, self._keys["queue"].public, self._keys[name], "lan", "main"))

    def hook(self, instance: str, flow: str) -> str:
        """Return the URL of a flow's webhook at one server."""
        return f"http://127.0.0.1:{self.ports[instance]}/hooks/{flow}"

    def log(self, instance: str) -> str:
        """Return what a process has said so far."""
        return (self._folder / f"{instance}.log").read_text(encoding="utf-8")

    def logs(self) -> str:
        """Return what all of them have said."""
        return "\n".join(f"--- {path.stem}\n{path.read_text()}" for path in sorted(self._folder.glob("*.log")))

    def _start(self, name: str) -> None:
        here = self._folder / name
        (here / "credentials").mkdir(parents=True, exist_ok=True)
        (here / "state").mkdir(exist_ok=True)
        (here / "credentials" / CURVE_CREDENTIAL).write_text(self._keys[name].secret, encoding="utf-8")
        (here / "credentials" / SERVER_KEYS_CREDENTIAL).write_text(self._keys["queue"].public, encoding="utf-8")
        context = ServiceContext(
            instance=name, component=_component(name), machine="box", lan="lan", cluster="main",
            queue_endpoint=self._endpoint, public_key=self._keys[name].public,
            legs={"cluster": LEG}, settings=msgspec.Raw(msgspec.json.encode(self._settings[name])),
        )  # fmt: skip
        (here / "service.json").write_bytes(msgspec.json.encode(context))
        address = f"{self._sockets.name}/{name}-{time.monotonic_ns()}"
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.append(notify)
        notify.bind(address)
        notify.settimeout(0.2)
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", self._modules[name]], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={
                    **os.environ, SERVICE_FILE: str(here / "service.json"), "NOTIFY_SOCKET": address,
                    "CREDENTIALS_DIRECTORY": str(here / "credentials"), "STATE_DIRECTORY": str(here / "state"),
                },
            )  # fmt: skip
        self._processes[name] = process
        _await_ready(notify, process, name)


def _await_ready(notify: socket.socket, process: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"{name} ended with status {process.returncode} before it was ready")
        try:
            if b"READY=1" in notify.recv(4096):
                return
        except TimeoutError:
            continue
    raise AssertionError(f"{name} was not ready within {DEADLINE_S:g} s")


def _component(instance: str) -> str:
    return instance.partition("-")[0]


def _modules(specs: Iterable[ComponentSpec]) -> dict[str, str]:
    """Return the module of each instance's main process, as its component declares it."""
    modules = {"queue": "appliance.queue.service"}
    for spec in specs:
        for instance in spec.instances:
            modules[instance.name] = instance.units[0].exec[-1]
    return modules

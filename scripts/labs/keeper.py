"""The keeper of a lab: PID 1 of the lab's PID namespace, in a network and a mount namespace of its own.

Every process of the lab is below it, every bridge, cable and mount exists only in its namespaces. So however it ends,
the kernel takes the whole lab down; only the folder and the control groups are left to the watcher, or to the next
`scripts/lab`.
"""

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import msgspec

from appliance.errors import ApplianceError
from scripts.labs import cgroup, control, guests, kernel, lan, process, publish, state, topology, wiring
from scripts.labs.errors import LabError, NoSuchLab
from scripts.labs.host import Host
from scripts.labs.machine import Machine, Sources
from scripts.labs.process import Children


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the watcher is told to start; `leashed` means that the lab ends when the watcher's standard input does."""

    name: str
    topology: topology.Topology
    tree: str
    working_copy: str
    leashed: bool


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a machine and the socket that stands for it on this computer."""

    machine: str
    port: int
    socket: socket.socket

    @property
    def outside(self) -> int:
        """The port on the loopback address."""
        return int(self.socket.getsockname()[1])


def credentials(machine: topology.Machine, published: list[Published]) -> dict[str, str]:
    """Return the systemd credentials that `machine` is started with."""
    given = {}
    for each in published:
        if each.machine == machine.name and each.port == 443:
            given["alpha-ren.outside-url"] = f"https://{publish.LOOPBACK}:{each.outside}"
    if machine.config is not None:
        given["alpha-ren.config"] = msgspec.toml.encode(machine.config).decode()
    return {**given, **machine.credentials}


def isolate() -> None:
    """Enter the lab's own namespaces; the caller is PID 1 of its PID namespace."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC)
    # Slave, not private: what the computer unmounts later is not held by the lab.
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    kernel.mount("proc", "/proc", "proc")
    # systemd-nspawn and ip(8) keep their state here; in here it is nobody else's.
    kernel.mount("tmpfs", "/run", "tmpfs", options="mode=0755")


class Keeper:
    """A lab from start to end."""

    def __init__(self, plan: Plan, published: list[Published], group: Path, watcher: int) -> None:
        self._plan = plan
        self._published = published
        self._group = group
        self._watcher = watcher
        self._folder = state.folder(plan.name)
        self._stop = asyncio.Event()
        self._machines: dict[str, Machine] = {}
        self._hosts: dict[str, Host] = {}

    async def run(self, ready: int) -> None:
        """Set the lab up, say so on the descriptor `ready`, and keep it until it shall end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        children = Children()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        listening.bind(str(state.control_socket(self._plan.name)))
        listening.listen(64)
        async with asyncio.TaskGroup() as group:
            tasks = await self._set_up(children, group)
            tasks.append(group.create_task(self._answer(listening, group)))
            if self._plan.leashed:
                loop.add_reader(0, self._pulled)
            os.write(ready, msgspec.json.encode(control.Reply()) + b"\n")
            os.close(ready)
            await self._stop.wait()
            for task in tasks:
                task.cancel()

    async def _set_up(self, children: Children, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        whole = self._plan.topology
        log = self._folder / state.LAN_LOG
        await wiring.apply(children, lan.bridges(whole), log)
        tasks = []
        for each in whole.lan:
            if each.dhcp:
                server = children.start(lan.dhcp_server(whole, each, self._folder), log=log)
                what = f"The server of LAN `{each.name}`"
                tasks.append(group.create_task(self._must_live(children, server, what, log)))
        for host_spec in whole.host:
            host = self._hosts[host_spec.name] = Host(host_spec, whole, self._folder / "hosts" / host_spec.name)
            await host.start(children)
            what = f"Host `{host_spec.name}`"
            tasks.append(group.create_task(self._must_live(children, host.leader, what, host.log)))
        sources = Sources(tree=Path(self._plan.tree), working_copy=Path(self._plan.working_copy))
        if any(spec.guests for spec in whole.machine):
            disks = await asyncio.to_thread(guests.make, sources.tree, sources.working_copy, self._folder / "guests")
            sources = msgspec.structs.replace(sources, disks=disks)
        for spec in whole.machine:
            full = msgspec.structs.replace(spec, credentials=credentials(spec, self._published))
            folder = self._folder / "machines" / spec.name
            machine = self._machines[spec.name] = Machine(full, whole, folder, self._group / f"machine-{spec.name}")
            machine.install(sources)
            if spec.start:
                machine.switch_on()
            tasks.append(group.create_task(machine.live(children)))
        for port in self._published:
            address = topology.address(whole, port.machine, self._machines[port.machine].spec.nics[0].lan)
            tasks.append(group.create_task(publish.serve(port.socket, address, port.port)))
        return tasks

    @staticmethod
    async def _must_live(children: Children, pid: int, what: str, log: Path) -> None:
        status = await children.wait(pid)
        raise LabError(f"{what} ended with status {status}: {process.tail(log)}")

    def _pulled(self) -> None:
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            self._stop.set()

    async def _answer(self, listening: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        pending: set[asyncio.Task[None]] = set()
        try:
            while True:
                connection, _ = await loop.sock_accept(listening)
                task = group.create_task(self._converse(connection))
                pending.add(task)
                task.add_done_callback(pending.discard)
        finally:
            for task in pending:
                task.cancel()

    async def _converse(self, connection: socket.socket) -> None:
        with connection:
            try:
                async with asyncio.timeout(10):
                    packet = await asyncio.get_running_loop().sock_recv(connection, control.PACKET)
                reply, descriptor = await self._do(msgspec.json.decode(packet, type=control.Request))
            except ApplianceError as error:
                reply, descriptor = control.Reply(problem=error.problem), None
            except (msgspec.DecodeError, TimeoutError, OSError) as error:
                reply, descriptor = control.Reply(problem=LabError(f"Not understood: {error}.").problem), None
            try:
                socket.send_fds(connection, [msgspec.json.encode(reply)], [] if descriptor is None else [descriptor])
            except OSError as error:
                print(f"A client went away before its answer: {error}", flush=True)
            finally:
                if descriptor is not None:
                    os.close(descriptor)

    async def _do(self, request: control.Request) -> tuple[control.Reply, int | None]:
        match request:
            case control.Show():
                return control.Reply(lab=self._view()), None
            case control.Attach(name=name):
                leader = self._hosts[name].leader if name in self._hosts else self._machine(name).leader
                if not leader:
                    raise NoSuchLab(f"Machine `{name}` is off.", hint=f"Its console: `scripts/lab logs {name}`.")
                return control.Reply(), os.pidfd_open(leader)
            case control.Power(machine=name, action=action):
                machine = self._machine(name)
                {"on": machine.switch_on, "off": machine.power_off, "unplug": machine.unplug}[action]()
                return control.Reply(), None
            case control.Await(machine=name, state=wanted, boots=boots, deadline_s=deadline_s):
                return control.Reply(reached=await self._machine(name).reach(wanted, boots, deadline_s)), None
            case control.Down():
                self._stop.set()
                return control.Reply(), None

    def _machine(self, name: str) -> Machine:
        if name not in self._machines:
            raise NoSuchLab(f"The lab `{self._plan.name}` has no machine or host called `{name}`.")
        return self._machines[name]

    def _view(self) -> control.LabView:
        whole = self._plan.topology
        return control.LabView(
            name=self._plan.name,
            tree=self._plan.tree,
            watcher=self._watcher,
            machines=tuple(
                control.MachineView(
                    name=name,
                    state=machine.state,
                    boots=machine.boots,
                    addresses={nic.lan: topology.address(whole, name, nic.lan) for nic in machine.spec.nics},
                    published={each.port: each.outside for each in self._published if each.machine == name},
                )
                for name, machine in self._machines.items()
            ),
            hosts=tuple(
                control.HostView(
                    name=name,
                    addresses={lan_name: topology.address(whole, name, lan_name) for lan_name in host.spec.lans},
                )
                for name, host in self._hosts.items()
            ),
        )


def first_problem(error: BaseException) -> ApplianceError:
    """Return what a person should read about `error`, which may be a group of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, ApplianceError) else LabError(f"{type(error).__name__}: {error}")


def main(plan: Plan, published: list[Published], group: Path, watcher: int, ready: int) -> int:
    """Be the keeper; return the exit status."""
    try:
        cgroup.enter(group / "keeper")
        cgroup.share_controllers(group)
        isolate()

        async def keep() -> None:
            await Keeper(plan, published, group, watcher).run(ready)

        asyncio.run(keep())
    except Exception as error:  # noqa: BLE001 - whatever it was, the one who waits has to hear it
        problem = first_problem(error)
        print(problem, flush=True)
        with contextlib.suppress(OSError):  # it was ready before it failed, and said so then
            os.write(ready, msgspec.json.encode(control.Reply(problem=problem.problem)) + b"\n")
        return 1
    return 0

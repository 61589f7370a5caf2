"""What the box is asked about its virtual machines: how they are, and to hold one still."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from appliance.contracts.machine import GuestNamed, Guests, GuestStatus
from appliance.contracts.user import Done
from appliance.errors import NotFound, Unavailable
from appliance.host import monitor
from appliance.host.guest import Guest
from appliance.supervisor.guest import GUEST_DOCUMENT
from appliance.supervisor.unit_text import run_directory
from appliance.topology import Machine

Call = Callable[[bytes], Awaitable[msgspec.Struct]]


class GuestCalls:
    """`machine` returns what should be, None before that is known; `reasons` say why servers are what they are."""

    def __init__(self, machine: Callable[[], Machine | None], reasons: Callable[[], tuple[str, ...]]) -> None:
        self._machine = machine
        self._reasons = reasons

    @property
    def calls(self) -> Mapping[str, Call]:
        """The calls by name, as the control socket serves them."""
        return {"guests": self._tell, "guest.pause": self._pause, "guest.resume": self._resume}

    async def _tell(self, _body: bytes) -> Guests:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(_status(guest)) for guest in self._guests().values()]
        return Guests(guests=tuple(task.result() for task in asked), notes=self._reasons())

    async def _pause(self, body: bytes) -> Done:
        await monitor.pause(self._named(body).qmp)
        return Done()

    async def _resume(self, body: bytes) -> Done:
        await monitor.resume(self._named(body).qmp)
        return Done()

    def _named(self, body: bytes) -> Guest:
        name, guests = msgspec.json.decode(body, type=GuestNamed).instance, self._guests()
        if name not in guests:
            raise NotFound(f"{name} is no virtual machine here.", hint="`alpha-ren guest` lists those that there are.")
        return guests[name]

    def _guests(self) -> dict[str, Guest]:
        machine = self._machine()
        if machine is None:
            raise Unavailable("The machine has not been laid out yet.")
        paths = {f"{run_directory(tap.namespace)}/{GUEST_DOCUMENT}" for tap in machine.taps}
        documents = (msgspec.json.decode(file.content, type=Guest) for file in machine.files if file.path in paths)
        return {guest.name: guest for guest in documents}


async def _status(guest: Guest) -> GuestStatus:
    return GuestStatus(
        instance=guest.name,
        state=await monitor.state(guest.qmp),
        accelerator=guest.accelerator,
        cpus=guest.cpus,
        memory_mb=guest.memory_mb,
    )

"""What the machine and each instance use, looked at every ten seconds; and who was killed for want of memory."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

import msgspec

from appliance.contracts.machine import InstanceUse
from appliance.host.pressure import GroupUse, group_use, machine_use
from appliance.topology import Machine, MachineUse

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
"""As long as the kernel's shortest average; more often would cost and say nothing new."""


class Gauges:
    """The last look."""

    def __init__(self, read: Callable[[str], GroupUse] = group_use) -> None:
        self._read = read
        self._seen: dict[str, GroupUse] = {}
        self._at = 0.0
        self.machine: MachineUse | None = None
        self.instances: tuple[InstanceUse, ...] = ()

    async def follow(self, wanted: Callable[[], Machine | None], killed: Callable[[str], None]) -> NoReturn:
        """Look again and again, and call `killed` with a sentence when an instance used up its memory."""
        while True:
            machine = wanted()
            if machine is not None:
                self.machine = await asyncio.to_thread(machine_use)
                for instance in await asyncio.to_thread(self.look, slices(machine), time.monotonic()):
                    log.warning("%s used up its memory: the kernel killed a process of it (oom)", instance)
                    killed(f"{instance} used up its memory")
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self, groups: Mapping[str, str], now: float) -> tuple[str, ...]:
        """Read the slice of each instance, and return which instances were killed in since the last look. Blocks.

        What was killed before the first look is counted, but is no news.
        """
        found = {instance: self._read(name) for instance, name in groups.items()}
        uses = tuple(self._use(instance, use, now - self._at) for instance, use in found.items())
        killed = tuple(
            instance
            for instance, use in found.items()
            if instance in self._seen and use.oom_kills > self._seen[instance].oom_kills
        )
        self._seen, self._at, self.instances = found, now, uses
        return killed

    def _use(self, instance: str, use: GroupUse, took_s: float) -> InstanceUse:
        before = self._seen.get(instance)
        percent = None
        if before is not None and before.cpu_s is not None and use.cpu_s is not None:
            percent = round(max(0.0, use.cpu_s - before.cpu_s) / took_s * 100, 1)
        fields = {name: value for name, value in msgspec.structs.asdict(use).items() if name != "cpu_s"}
        return InstanceUse(**fields, instance=instance, cpu_percent=percent)


def slices(machine: Machine) -> dict[str, str]:
    """Return the slice of each instance."""
    return {unit.instance: unit.name for unit in machine.units if unit.name.endswith(".slice")}

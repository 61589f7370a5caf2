"""Decides which instances are virtual machines here, and moves them from one form to the other, one at a time."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

from appliance.component import Placed
from appliance.host import ground
from appliance.host.accelerator import Accelerator, Finding
from appliance.host.box import Box
from appliance.supervisor.guest import Ground
from appliance.supervisor.isolation import Form, chosen, forms, settled, wanted
from appliance.topology import UnitFact


class Guests:
    """`answers` says whether an instance answers an application-level ping; `found` is kept for a boot, in /run."""

    def __init__(self, box: Box, answers: Callable[[str], Coroutine[Any, Any, bool]], found: Path) -> None:
        self._box = box
        self._answers = answers
        self._found = found
        self.ground = Ground()
        self._none_left = False
        self._reached: Mapping[str, Form] = {}
        """What all instances were found to be; only this process makes them anything else."""
        self.moving = False
        """Whether an instance is still to move, which nobody tells of when its time has come."""
        self.notes: tuple[str, ...] = ()
        """What a person should know at once."""
        self.reasons: tuple[str, ...] = ()
        """The notes, and why servers are what they are."""

    async def choose(self, placed: tuple[Placed, ...]) -> frozenset[str]:
        """Return the instances that are virtual machines in this round."""
        nobody_may = all(each.instance.isolation == "namespace" for each in placed)
        if nobody_may and self._none_left:
            return frozenset()
        asked = any(each.instance.isolation == "vm" for each in placed)
        finding = await ground.kvm(self._found, asked=asked)
        disks = await asyncio.to_thread(ground.disks)
        self.ground = Ground(accelerator=finding.accelerator.value, emulated=finding.emulated, disks=disks)
        gain = finding.accelerator is Accelerator.KVM and not finding.emulated
        should = wanted(placed, possible=bool(disks), gain=gain)
        result, behind = (should, []) if should == self._reached else await self._towards(should, placed)
        self._reached = {} if behind else should
        self.moving = bool(behind)
        self.notes = tuple(_notes(placed, disks, finding, should, behind))
        why = "that is what is configured" if nobody_may else finding.reason
        ordinary = () if "vm" in should.values() else (f"Servers run in namespaces: {why}.",)
        self.reasons = self.notes or ordinary
        guests = frozenset(name for name, form in result.items() if form == "vm")
        self._none_left = nobody_may and not guests
        return guests

    async def _towards(
        self, should: Mapping[str, Form], placed: tuple[Placed, ...]
    ) -> tuple[Mapping[str, Form], list[str]]:
        """Return what each instance is to be in this round, and which are not yet what they should be."""
        facts = await self._box.units.observe()
        is_now = forms(should, facts)
        behind = [name for name in should if is_now.get(name, should[name]) != should[name]]
        serving = await self._serving(placed, behind, facts) if behind else set()
        return chosen(placed, should, is_now, serving), behind

    async def _serving(
        self, placed: Iterable[Placed], behind: Iterable[str], facts: tuple[UnitFact, ...]
    ) -> set[str]:
        """Return the instances that serve, of the components of which one is to move."""
        placed, now = tuple(placed), time.time()
        components = {each.component for each in placed if each.instance.name in behind}
        names = [each.instance.name for each in placed if each.component in components]
        steady = [name for name in names if settled(name, facts, now)]
        async with asyncio.TaskGroup() as group:
            asked = {name: group.create_task(self._answers(name)) for name in steady}
        return {name for name, task in asked.items() if task.result()}


def _notes(
    placed: Iterable[Placed], disks: tuple[str, ...], finding: Finding, should: Mapping[str, Form], behind: list[str]
) -> Iterable[str]:
    asked = any(each.instance.isolation == "vm" for each in placed)
    if asked and not disks:
        yield "Servers run in namespaces, not in virtual machines: /usr cannot be handed to a guest here."
    elif asked and (finding.emulated or finding.accelerator is Accelerator.TCG):
        yield f"Virtual machines are emulated and slow: {finding.reason}."
    if behind:
        form = {"vm": "virtual machines", "namespace": "namespaces"}[should[behind[0]]]
        yield f"{', '.join(behind)}: moved into {form} one at a time, each once the others serve."

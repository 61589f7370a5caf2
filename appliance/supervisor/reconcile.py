"""One round: look, compare, and take the steps. What cannot be done is said and tried again; the rest goes on."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from appliance.errors import ApplianceError, Problem
from appliance.host.box import Box
from appliance.host.netlink import KernelLacks
from appliance.supervisor.plan import Step, plan
from appliance.topology import File, Loaded, Machine, Observed, Unit, UnitFact

log = logging.getLogger(__name__)


PINNED_AT = "/run/netns"


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What a round did: the steps it took, the problems it met, what it saw before."""

    steps: tuple[Step, ...]
    problems: tuple[Problem, ...]
    observed: Observed


class Reconciler:
    """Makes a Box the wanted machine, step by step."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._lacks: dict[tuple[str, str], str] = {}
        self.step = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What this machine's kernel cannot do, in sentences."""
        return tuple(self._lacks.values())

    async def look(self, wanted: Machine) -> tuple[tuple[Step, ...], Observed]:
        """Return the steps that a round would take now, and what they follow from."""
        observed = await self._box.observe(wanted)
        steps = plan(wanted, observed)
        return tuple(step for step in steps if (step.kind, step.name) not in self._lacks), observed

    async def round(self, wanted: Machine, cause: str) -> Round:
        """Take the steps. Network and files go one after the other, units all at once: they wait for each other
        themselves.
        """
        steps, observed = await self.look(wanted)
        if steps and any(step.kind == "unit" for step in steps) and await self._box.units.stopping():
            log.info("the machine is going down")
            return Round(steps=(), problems=(), observed=observed)
        if steps:
            log.info("%d steps to take, because of: %s", len(steps), cause)
        problems: list[Problem] = []
        failed: set[str] = set()
        try:
            for step in steps:
                if step.kind != "unit" or step.action == "remove":
                    await self._try(step, problems, failed)
            await self._units(
                [step for step in steps if step.kind == "unit" and step.action != "remove"], problems, failed
            )
        finally:
            self.step = ""
        await self._box.follow(
            [each.name for each in wanted.namespaces], [PINNED_AT, *(each.path for each in wanted.directories)]
        )
        return Round(steps=steps, problems=tuple(problems), observed=observed)

    async def _units(self, steps: list[Step], problems: list[Problem], failed: set[str]) -> None:
        writes = [step.noun for step in steps if step.action == "write" and isinstance(step.noun, Unit)]
        if writes:
            self.step = f"write {len(writes)} units"
            log.info("%s", self.step)
            await asyncio.to_thread(self._box.units.write, writes)
            await self._box.units.reload_manager()
        async with asyncio.TaskGroup() as group:
            for step in steps:
                if step.action != "write":
                    group.create_task(self._try(step, problems, failed))

    async def _try(self, step: Step, problems: list[Problem], failed: set[str]) -> None:
        self.step = str(step)
        log.info("%s", step)
        try:
            await self._take(step, failed)
        except KernelLacks as error:
            log.warning("%s", error)
            self._lacks[step.kind, step.name] = error.message
        except ApplianceError as error:
            log.error("%s failed: %s", step, error)
            problems.append(error.problem)
            if isinstance(step.noun, File):
                failed.add(step.noun.path)
        except OSError as error:
            log.error("%s failed: %s", step, error)
            problems.append(
                Problem(code="step-failed", message=f"The step `{step}` failed: {error}.", hint="It is tried again.")
            )

    async def _take(self, step: Step, failed: set[str]) -> None:
        noun = step.noun
        if isinstance(noun, UnitFact):
            await self._box.units.remove(noun.name)
        elif isinstance(noun, Unit):
            await self._run(step, noun, failed)
        elif step.action == "remove":
            await self._box.remove(noun)
        else:
            await self._box.make(noun)

    async def _run(self, step: Step, unit: Unit, failed: set[str]) -> None:
        loaded = step.loaded
        if loaded is None:
            raise RuntimeError(f"{step} does not say what the unit runs with")
        if hurt := _hurt(unit, failed):
            # It keeps running with the old file, or starts with it; the digests make sure that it hears of the new one.
            if step.action != "start" or not await asyncio.to_thread(_all_there, hurt):
                return
            loaded = Loaded(text=loaded.text, restart="", reload="")
        match step.action:
            case "start":
                await self._box.units.start(unit, loaded)
            case "restart":
                await self._box.units.restart(unit, loaded)
            case "reload":
                await self._box.units.reload(unit, loaded)
            case other:
                raise RuntimeError(f"a unit cannot {other}")


def _all_there(paths: Iterable[str]) -> bool:
    return all(Path(path).exists() for path in paths)


def _hurt(unit: Unit, failed: Iterable[str]) -> list[str]:
    return [path for path in failed if path in unit.reload_on or path in unit.restart_on]

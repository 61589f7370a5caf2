"""One round: look, compare, and take the steps. What cannot be done is said and tried again; the rest goes on."""

import asyncio
import logging
import os
from collections.abc import Coroutine

import msgspec

from appliance.errors import ApplianceError, Problem
from appliance.host.box import Box
from appliance.host.netlink import KernelLacks
from appliance.supervisor.plan import Step, despite, plan
from appliance.topology import File, Machine, Noun, Observed, Unit, UnitFact

log = logging.getLogger(__name__)


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What a round did: the steps it took, the problems it met, what it saw before."""

    steps: tuple[Step, ...]
    problems: tuple[Problem, ...]
    observed: Observed


class Reconciler:
    """Makes a Box the wanted machine, step by step."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._lacks: dict[Noun, str] = {}
        self.step = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What this machine's kernel cannot do, in sentences."""
        return tuple(self._lacks.values())

    async def look(self, wanted: Machine) -> tuple[tuple[Step, ...], Observed]:
        """Return the steps that a round would take now, and what they follow from."""
        observed = await self._box.observe(wanted)
        steps = plan(wanted, observed)
        # What is no longer wanted is no longer missing.
        self._lacks = {noun: said for noun, said in self._lacks.items() if any(step.noun == noun for step in steps)}
        return tuple(step for step in steps if step.noun not in self._lacks), observed

    async def round(self, wanted: Machine, cause: str) -> Round:
        """Take the steps: network and files one after the other, units all at once, since they wait for each other."""
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
        await self._box.follow(each.path for each in wanted.directories)
        return Round(steps=steps, problems=tuple(problems), observed=observed)

    async def _units(self, steps: list[Step], problems: list[Problem], failed: set[str]) -> None:
        writes = [step for step in steps if step.action in ("make", "change")]
        runs = [step for step in steps if step not in writes]
        # systemd reads a unit that it does not know yet by itself; only what it knows must be read anew. A restart may
        # be for a text that a supervisor wrote and then died.
        anew = any(step.action in ("change", "restart") for step in steps)
        if (writes or anew) and not await self._tried(
            f"write {len(writes)} units", self._write([step.noun for step in writes], anew), problems
        ):
            return
        left = await asyncio.to_thread(lambda: [despite(step, failed, os.path.exists) for step in runs])
        async with asyncio.TaskGroup() as group:
            for step in left:
                if step is not None:
                    group.create_task(self._tried(str(step), self._run(step), problems))

    async def _write(self, nouns: list[Noun], anew: bool) -> None:
        await asyncio.to_thread(self._box.units.write, [noun for noun in nouns if isinstance(noun, Unit)])
        if anew:
            await self._box.units.reload_manager()

    async def _try(self, step: Step, problems: list[Problem], failed: set[str]) -> None:
        done = await self._tried(str(step), self._take(step), problems)
        if not done and isinstance(step.noun, File):
            failed.add(step.noun.path)

    async def _tried(self, what: str, work: Coroutine[None, None, None], problems: list[Problem]) -> bool:
        """Do it and return whether it worked; what went wrong is said and added to `problems`."""
        self.step = what
        log.info("%s", what)
        try:
            await work
        except KernelLacks as error:
            # No problem of this machine's: it is said once, and not tried again.
            log.warning("%s", error)
            self._lacks[error.missing] = error.message
        except ApplianceError as error:
            log.error("%s failed: %s", what, error)
            problems.append(error.problem)
        except OSError as error:
            log.error("%s failed: %s", what, error)
            message = f"The step `{what}` failed: {error}."
            problems.append(Problem(code="step-failed", message=message, hint="It is tried again by itself."))
        else:
            return True
        return False

    async def _take(self, step: Step) -> None:
        noun = step.noun
        if isinstance(noun, UnitFact):
            await self._box.units.remove(noun.name)
        elif step.action == "remove":
            await self._box.remove(noun)
        else:
            await self._box.make(noun)

    async def _run(self, step: Step) -> None:
        unit, loaded = step.noun, step.loaded
        if not isinstance(unit, Unit) or loaded is None:
            raise RuntimeError(f"{step} does not say what the unit runs with")
        match step.action:
            case "start":
                await self._box.units.start(unit, loaded)
            case "restart":
                await self._box.units.restart(unit, loaded)
            case "reload":
                await self._box.units.reload(unit, loaded)
            case other:
                raise RuntimeError(f"a unit cannot {other}")

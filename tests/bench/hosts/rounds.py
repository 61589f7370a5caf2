"""Rounds one by one, as the supervisor takes them, in the process of the bench."""

import asyncio
import cProfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from appliance.component import STATE
from appliance.host.box import Box
from appliance.supervisor.inforce import ConfigFile
from appliance.supervisor.intent import Intent
from appliance.supervisor.keys import KeyStore
from appliance.supervisor.reconcile import Reconciler
from appliance.supervisor.unit_text import MARK
from appliance.topology import Machine
from tests.bench.hosts import profiles

PROFILED = 5


@asynccontextmanager
async def single() -> AsyncIterator[tuple[Box, Callable[[], Awaitable[Machine]]]]:
    """Give the box, and a round that returns what should be."""
    async with Box(_nobody, unit_mark=MARK) as box:
        reconciler, config = Reconciler(box), ConfigFile(Path(STATE))
        intent = Intent(box, KeyStore(Path(STATE) / "keys"), None, _nobody_answers)

        async def a_round() -> Machine:
            in_force = await asyncio.to_thread(config.read)
            machine = (await intent.form(in_force.config)).machine
            outcome = await reconciler.round(machine, "bench")
            if outcome.problems:
                raise RuntimeError(outcome.problems[0].message)
            return machine

        await a_round()
        yield box, a_round


async def profiled(box: Box, before: Callable[[], Awaitable[None]], work: Callable[[], Awaitable[object]]) -> str:
    """Return where the time of some work goes."""
    profile = cProfile.Profile()
    for _ in range(PROFILED):
        await before()
        await box.namespaces.call(profile.enable)
        await work()
        await box.namespaces.call(profile.disable)
    return profiles.text(profile)


def _nobody(_cause: str) -> None:
    """Nobody is woken: the rounds are taken one by one."""


async def _nobody_answers(_instance: str) -> bool:
    """Nobody is asked: no server moves."""
    return False

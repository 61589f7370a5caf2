"""One run: actors at work while a schedule of faults goes on, then rest, then the checker's word."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance.queue.store import Brief
from tests.chaos import history
from tests.chaos.checker import Violation, check
from tests.chaos.deeds import DEEDS
from tests.chaos.layer import Layer, mounted
from tests.chaos.nemesis import EVERYTHING, Kind, Step, schedule
from tests.chaos.proxy import proxying
from tests.chaos.stage import LEASE_S, Actor, Stage
from tests.unit.queue.running import Broker


class Plan(msgspec.Struct, frozen=True):
    """What a run is made of: one seed makes the same actors and faults. `module` is what starts another broker."""

    seed: str
    duration_s: float
    kinds: tuple[Kind, ...] = EVERYTHING
    rate: float = 60.0
    module: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True):
    """What came of it."""

    violations: list[Violation]
    tally: dict[str, int]
    steps: list[Step]


def run(plan: Plan, directory: Path) -> Outcome:
    """Play the plan and judge it; `directory` keeps schedule, history, logs and store.

    Raises Unexpected when something ended by itself, or the queue did not come to rest.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    steps = schedule(plan.seed, plan.duration_s, LEASE_S, plan.kinds)
    (directory / "schedule.json").write_bytes(msgspec.json.format(msgspec.json.encode(steps)))
    with tempfile.TemporaryDirectory(prefix="arc") as place, mounted(Path(place) / "state") as layer:
        broker = Broker(
            Path(place), lease_s=LEASE_S, heartbeat_s=0.2, min_free_bytes=65536, keep_s=86400.0 * 30, keep_rows=10**7
        )
        rows = asyncio.run(_play(plan, steps, broker, layer, directory))
    lines = history.read(directory)
    return Outcome(check(lines, rows), history.tally(lines), steps)


async def _play(plan: Plan, steps: Sequence[Step], broker: Broker, layer: Layer, directory: Path) -> list[Brief]:
    port = int(broker.endpoint.rpartition(":")[2])
    async with proxying(port) as proxy:
        stage = Stage(broker, layer, proxy, directory=directory, seed=plan.seed, module=plan.module)
        stage.producers = [Actor(stage, "producer", f"producer-{n}", plan.rate / 2) for n in range(2)]
        stage.consumers = [Actor(stage, "consumer", f"consumer-{n}", plan.rate) for n in range(3)]
        try:
            await stage.start()
            async with asyncio.TaskGroup() as group:
                for actor in (*stage.producers, *stage.consumers):
                    group.create_task(actor.live())
                await _trouble(stage, steps, plan.duration_s)
                for actor in stage.producers:
                    await actor.stop()
                await stage.at_rest()
                for actor in stage.consumers:
                    await actor.stop()
            await stage.kill(cut="")  # what counts is what a power cut leaves
            return stage.stored()
        finally:
            stage.keep()
            stage.close()


async def _trouble(stage: Stage, steps: Sequence[Step], duration_s: float) -> None:
    """Do what the schedule says, and end with everything in order."""
    began = asyncio.get_running_loop().time()
    for step in steps:
        await _until(began + step.at_s)
        stage.alive()
        stage.note(f"{step.kind} for {step.for_s:g} s")
        await DEEDS[step.kind](stage, step)
    await _until(began + duration_s)
    stage.note("all is well again")


async def _until(time: float) -> None:
    await asyncio.sleep(max(0.0, time - asyncio.get_running_loop().time()))

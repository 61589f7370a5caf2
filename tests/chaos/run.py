"""One run: actors at work while a schedule of faults goes on, then rest, then the checker's word."""

import asyncio
import contextlib
import itertools
import random
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from appliance.queue.store import Brief
from tests.chaos import history
from tests.chaos.checker import Violation, check
from tests.chaos.clusters import seen_from
from tests.chaos.deeds import DEEDS
from tests.chaos.layer import mounted
from tests.chaos.nemesis import EVERYTHING, Kind, Step, schedule
from tests.chaos.proxy import proxying
from tests.chaos.stage import LEASE_S, Actor, Stage
from tests.unit.queue.bridges import Side


class Plan(msgspec.Struct, frozen=True):
    """What a run is made of: one seed makes the same actors and faults.

    `rate` is of messages a second in all, `module` what starts another broker. Two clusters have a bridge each.
    """

    seed: str
    duration_s: float
    kinds: tuple[Kind, ...] = EVERYTHING
    rate: float = 60.0
    module: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ("a", "b")


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
    with tempfile.TemporaryDirectory(prefix="arc") as place:
        stores = asyncio.run(_play(plan, steps, Path(place), directory))
    lines = history.read(directory)
    violations = [v for name, rows in stores.items() for v in check(seen_from(name, lines, stores), rows)]
    return Outcome(violations, history.tally(lines), steps)


async def _play(plan: Plan, steps: Sequence[Step], place: Path, directory: Path) -> dict[str, list[Brief]]:
    # Waiting for a process takes a thread each; the loop's own pool is smaller than that.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
    async with contextlib.AsyncExitStack() as stack:
        stages: list[Stage] = []
        for name in plan.clusters:
            side = Side(
                place / name, name, lease_s=LEASE_S, heartbeat_s=0.2, min_free_bytes=65536, keep_s=86400.0 * 30,
                keep_rows=10**7,
            )  # fmt: skip
            layer = stack.enter_context(mounted(side.directory / "state"))
            proxy = await stack.enter_async_context(proxying(int(side.endpoint.rpartition(":")[2])))
            stages.append(Stage(side, layer, proxy, directory=directory, seed=plan.seed, module=plan.module))
        for here, there in itertools.permutations(stages, 2):
            here.broker.route(there.broker, f"tcp://127.0.0.1:{there.proxy.port}", answer_s=2.0)
            here.broker.admit(there.broker)
        rate = plan.rate / len(stages)
        for stage, name in zip(stages, plan.clusters, strict=True):
            stage.producers = [Actor(stage, "producer", f"{name}-producer-{n}", rate / 2) for n in range(2)]
            stage.consumers = [Actor(stage, "consumer", f"{name}-consumer-{n}", rate) for n in range(2)]
            stack.callback(stage.close)
            stack.callback(stage.keep)
        await _act(plan, steps, stages)
        return {name: stage.stored() for name, stage in zip(plan.clusters, stages, strict=True)}


async def _act(plan: Plan, steps: Sequence[Step], stages: Sequence[Stage]) -> None:
    """Let everybody work through all of it and come to rest, and end with a power cut."""
    for stage in stages:
        await stage.start()
    for stage in stages:
        if stage.broker.to:
            await asyncio.to_thread(stage.broker.start_bridge)
    async with asyncio.TaskGroup() as group:
        for stage in stages:
            for actor in (*stage.producers, *stage.consumers):
                group.create_task(actor.live())
        await _trouble(stages, steps, plan.duration_s)
        for stage in stages:
            for actor in stage.producers:
                await actor.stop()
        for stage in (*stages, *stages):  # twice, since one may fill the other while it comes to rest
            await stage.at_rest()
        for stage in stages:
            for actor in stage.consumers:
                await actor.stop()
    for stage in stages:
        await stage.kill(cut="")  # what counts is what a power cut leaves


async def _trouble(stages: Sequence[Stage], steps: Sequence[Step], duration_s: float) -> None:
    """Do what the schedule says, each step to one of the clusters, and end with everything in order."""
    began = asyncio.get_running_loop().time()
    for step in steps:
        await _until(began + step.at_s)
        for stage in stages:
            stage.alive()
        stage = random.Random(f"{step.seed}/where").choice(stages)
        stage.note(f"{step.kind} for {step.for_s:g} s")
        await DEEDS[step.kind](stage, step)
    await _until(began + duration_s)


async def _until(time: float) -> None:
    await asyncio.sleep(max(0.0, time - asyncio.get_running_loop().time()))

"""One run: actors at work while faults go on in each cluster, then rest, then the checker's word."""

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from appliance.queue.sqlite_file import LAID_OUT, LAID_OUT_PART
from appliance.queue.store import Brief
from tests.chaos import backup, history
from tests.chaos.actors import Habits
from tests.chaos.checker import Violation, check
from tests.chaos.clusters import lost_on_the_way, seen_from
from tests.chaos.deeds import DEEDS
from tests.chaos.disk import ROOM
from tests.chaos.layer import RUN, mounted
from tests.chaos.nemesis import EVERYTHING, Kind, Step, schedule
from tests.chaos.proxy import proxying
from tests.chaos.stage import LEASE_S, Actor, Stage
from tests.unit.queue.bridges import Side

TOLD_EVERY_S = 60.0
ENOUGH_WITHIN_S = 120.0
WRONG_S = 3600.0
HURRIED = ("-m", "tests.chaos.hurried")
LITTLE_ROOM = LAID_OUT_PART * LAID_OUT - 1
"""Too little for the tables' log to be laid out: commits lengthen it, and a full disk stops them. Only one cluster has
more, and the broker as it is; the others are hurried.
"""


class Plan(msgspec.Struct, frozen=True):
    """What a run is made of: one seed makes the same actors and faults.

    `rate` is of messages a second in all, `module` what starts another broker. Two clusters have a bridge each. There
    are more faults until what has happened is `enough`, for ENOUGH_WITHIN_S at the most.
    """

    seed: str
    duration_s: float
    kinds: tuple[Kind, ...] = EVERYTHING
    rate: float = 60.0
    habits: Habits = Habits()
    module: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ("a", "b")
    enough: Callable[[Sequence[history.Line]], bool] = lambda _: True


class Outcome(msgspec.Struct, frozen=True):
    """What came of it: what the actors did, what the nemesis did, and how the messages ended."""

    violations: list[Violation]
    tally: dict[str, int]
    faults: dict[str, int]
    ends: dict[str, int]


def run(plan: Plan, directory: Path) -> Outcome:
    """Play the plan and judge it; `directory` keeps schedules, history, logs, stores and backups.

    Raises Unexpected when something ended by itself, or the queue did not come to rest.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory(prefix=RUN) as place:
        found = asyncio.run(_play(plan, Path(place), directory))
    lines = history.read(directory)
    stores = {name: rows for name, (_, rows) in found.items()}
    violations = [Violation("sound", f"{name}: {text}") for name, (wrong, _) in found.items() for text in wrong]
    violations += lost_on_the_way(stores)
    for name, rows in stores.items():
        seen = seen_from(name, lines, stores)
        violations += check(seen, rows)
        for path in sorted(directory.glob(f"{name}-*.backup")):
            violations += backup.judged(seen, msgspec.msgpack.decode(path.read_bytes(), type=backup.Backup))
    return Outcome(violations, history.tally(lines), history.faults(lines), _ends(stores, lines))


def _ends(stores: Mapping[str, Sequence[Brief]], lines: Sequence[history.Line]) -> dict[str, int]:
    """Return how many messages ended in each way, and how many were stored while the clock was wrong."""
    ends: dict[str, int] = {}
    published = {line.name: line.wall for line in reversed(lines) if isinstance(line, history.Publish)}
    for row in itertools.chain.from_iterable(stores.values()):
        states = [row.state.name.lower()]
        if abs(row.published_at - published.get((row.origin, row.id), row.published_at)) > WRONG_S:
            states.append("stored at a wrong hour")
        for state in states:
            ends[state] = ends.get(state, 0) + 1
    return dict(sorted(ends.items()))


async def _play(plan: Plan, place: Path, directory: Path) -> dict[str, tuple[Sequence[str], list[Brief]]]:
    # Waiting for a process takes a thread each; the loop's own pool is smaller than that.
    threads = ThreadPoolExecutor(64)
    asyncio.get_running_loop().set_default_executor(threads)
    async with contextlib.AsyncExitStack() as stack:
        stages: dict[str, Stage] = {}
        for name in plan.clusters:
            side = Side(
                place / name, name, lease_s=LEASE_S, heartbeat_s=0.2, min_free_bytes=65536, keep_s=86400.0 * 30,
                keep_rows=10**7,
            )  # fmt: skip
            first = name == plan.clusters[0]
            room, module = ROOM if first else LITTLE_ROOM, plan.module or (() if first else HURRIED)
            layer = stack.enter_context(mounted(side.directory / "state", room))
            proxy = await stack.enter_async_context(proxying(int(side.endpoint.rpartition(":")[2])))
            stages[name] = Stage(
                side, layer, proxy, directory=directory, seed=plan.seed, habits=plan.habits, module=module
            )  # fmt: skip
        for here, there in itertools.permutations(stages.values(), 2):
            next_key = there.broker.next_keys.public
            here.broker.route(
                there.broker, f"tcp://127.0.0.1:{there.proxy.port}", answer_s=2.0, next_key=next_key
            )  # fmt: skip
            here.broker.admit(there.broker)
            there.others.append(here.broker)
        rate = plan.rate / len(stages)
        for name, stage in stages.items():
            stage.producers = [Actor(stage, "producer", f"{name}-producer-{n}", rate / 2) for n in range(2)]
            stage.producers.append(Actor(stage, "producer", f"{name}-visitor", rate / 4, outside=True))
            stage.consumers = [Actor(stage, "consumer", f"{name}-consumer-{n}", rate) for n in range(2)]
        for stage in stages.values():
            stack.callback(stage.close)  # what was being started meanwhile
        stack.callback(threads.shutdown)
        for stage in stages.values():
            stack.callback(stage.close)
            stack.callback(stage.keep)
        await _act(plan, stages)
        return {name: stage.stored() for name, stage in stages.items()}


async def _act(plan: Plan, stages: Mapping[str, Stage]) -> None:
    """Let everybody work through all of it and come to rest, and end with a power cut."""
    for stage in stages.values():
        await stage.start()
    for stage in stages.values():
        if stage.broker.to:
            await asyncio.to_thread(stage.broker.start_bridge)
    async with asyncio.TaskGroup() as group:
        gates = [group.create_task(stage.keep_gate()) for stage in stages.values()]
        for stage in stages.values():
            for actor in (*stage.producers, *stage.consumers):
                group.create_task(actor.live())
        for stage in stages.values():
            await stage.at_work()
        end = asyncio.get_running_loop().time() + ENOUGH_WITHIN_S
        for number in itertools.count():
            if not await _trouble(plan, number, stages) or asyncio.get_running_loop().time() > end:
                break
        await _stop(actor for stage in stages.values() for actor in stage.producers)
        for stage in (*stages.values(), *stages.values()):  # twice, since one may fill the other while it comes to rest
            await stage.at_rest()
        await _stop(actor for stage in stages.values() for actor in stage.consumers)
        for gate in gates:
            gate.cancel()
    for stage in stages.values():
        await stage.kill(cut="")  # what counts is what a power cut leaves


async def _stop(actors: Iterable[Actor]) -> None:
    async with asyncio.TaskGroup() as group:
        for actor in actors:
            group.create_task(actor.stop())


async def _trouble(plan: Plan, number: int, stages: Mapping[str, Stage]) -> bool:
    """Let all clusters meet with faults, and return whether there are to be more; say every minute how far it is."""
    directory = next(iter(stages.values())).directory
    schedules = {
        name: schedule(f"{plan.seed}/{name}/{number}", plan.duration_s, LEASE_S, plan.kinds) for name in stages
    }  # fmt: skip
    (directory / f"schedule-{number}.json").write_bytes(msgspec.json.format(msgspec.json.encode(schedules)))
    async with asyncio.TaskGroup() as group:
        teller = group.create_task(_tell(directory))
        nemeses = [group.create_task(_meet(stage, schedules[name], plan.duration_s)) for name, stage in stages.items()]
        await asyncio.wait(nemeses)
        teller.cancel()
    for stage in stages.values():
        await stage.at_work()
    return not plan.enough(await asyncio.to_thread(history.read, directory))


async def _meet(stage: Stage, steps: Sequence[Step], duration_s: float) -> None:
    """Do to a cluster what its schedule says, and end with everything in order."""
    began = asyncio.get_running_loop().time()
    for step in steps:
        await _until(began + step.at_s)
        stage.alive()
        await DEEDS[step.kind](stage, step)
        stage.note(step.kind)
    await _until(began + duration_s)


async def _tell(directory: Path) -> None:
    """Say every minute how far it is."""
    for minute in itertools.count(1):
        await asyncio.sleep(TOLD_EVERY_S)
        lines = await asyncio.to_thread(history.read, directory)
        steps = sum(isinstance(line, history.Fault) for line in lines)
        tally = history.tally(lines)
        stored, done = tally.get("published stored", 0), tally.get("done ok", 0)
        print(f"{minute} min: {stored} stored, {done} done, {steps} faults", flush=True)


async def _until(time: float) -> None:
    await asyncio.sleep(max(0.0, time - asyncio.get_running_loop().time()))

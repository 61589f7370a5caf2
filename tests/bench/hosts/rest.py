"""What the supervisor costs where nothing is to be done: its process at rest, and its rounds one by one."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from appliance.supervisor.events import LOOK_SELDOM_S
from appliance.supervisor.gauges import Gauges, slices
from tests.bench.hosts import rounds, running
from tests.bench.hosts.figures import Cost, Idle, Rest
from tests.bench.peers import processes

SERVERS = 200
WINDOW_S = LOOK_SELDOM_S
"""No longer does the supervisor go without looking at everything, so there is at least one such look in each."""
PROFILED = 5
TOUCHED = "arsrv-100"


def at_rest(runs: int) -> Rest:
    """Take all of it with two hundred ARSRVs."""
    with running.surroundings(SERVERS):
        with running.supervisor() as pid:
            idles = tuple(_idle(pid) for _ in range(runs))
            asked = tuple(asyncio.run(_asked(pid)) for _ in range(runs))
        rounds, texts = asyncio.run(_rounds(runs))
    return Rest(idles=idles, asked=asked, rounds=rounds, profiles=texts)


def _idle(pid: int) -> Idle:
    """Let it be for a while."""
    began, cpu_s = time.monotonic(), processes.cpu_s([pid])
    time.sleep(WINDOW_S)
    percent = (processes.cpu_s([pid]) - cpu_s) / (time.monotonic() - began) * 100
    return Idle(cpu_percent=percent, memory_mb=processes.resident_mb([pid]), peak_mb=processes.peak_mb(pid))


async def _asked(pid: int) -> Cost:
    """Let it look at everything, as `alpha-ren plan` does."""
    began, cpu_s = time.monotonic(), processes.cpu_s([pid])
    found = await running.plan()
    took_s, cpu_s = time.monotonic() - began, processes.cpu_s([pid]) - cpu_s
    if found.steps:
        raise RuntimeError(f"there was something to do: {found.steps[0]}")
    return Cost(took_s=took_s, cpu_s=cpu_s)


async def _rounds(runs: int) -> tuple[dict[str, list[Cost]], dict[str, str]]:
    """Take rounds by themselves, in this process."""
    async with rounds.single() as (box, a_round):

        async def nothing() -> None:
            pass

        async def touched() -> None:
            for what in ("add", "del"):
                address = await asyncio.create_subprocess_exec(
                    "ip", "-n", TOUCHED, "addr", what, "192.0.2.9/32", "dev", "lo"
                )
                assert await address.wait() == 0

        async def distrusted() -> None:
            box.look_everywhere()

        async def looked(gauges: Gauges, groups: dict[str, str]) -> None:
            await asyncio.to_thread(gauges.look, groups, time.monotonic())

        machine = await a_round()
        gauges, groups = Gauges(), slices(machine)
        kinds: dict[str, tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[object]]]] = {
            "untouched": (nothing, a_round),
            "touched": (touched, a_round),
            "everything": (distrusted, a_round),
            "gauges": (nothing, lambda: looked(gauges, groups)),
        }
        taken = {kind: [await _cost(*each) for _ in range(runs)] for kind, each in kinds.items()}
        texts = {kind: await rounds.profiled(box, *each) for kind, each in kinds.items()}
    return taken, texts


async def _cost(before: Callable[[], Awaitable[None]], work: Callable[[], Awaitable[object]]) -> Cost:
    await before()
    began, cpu_s = time.monotonic(), time.process_time()
    await work()
    return Cost(took_s=time.monotonic() - began, cpu_s=time.process_time() - cpu_s)

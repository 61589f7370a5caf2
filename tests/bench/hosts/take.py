"""Makes a machine from nothing, once: `python3 -m tests.bench.hosts.take ours|by-hand SERVERS [held|profile]`.

Runs in a network and a mount namespace of its own (`command`); prints a Split as JSON. What is timed is one round of
the supervisor, and the script of `by_hand`; both know what there should be before that.
"""

import asyncio
import cProfile
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance.host.box import Box
from appliance.host.netns import Namespaces
from appliance.supervisor.reconcile import Reconciler
from appliance.topology import Machine
from scripts.labs import kernel
from tests.bench.hosts import by_hand, likeness, machines, profiles
from tests.bench.hosts.figures import Split

GONE_WITHIN_S = 120.0


def command(*arguments: str) -> list[str]:
    """Return the command line that takes one."""
    return ["unshare", "--net", "--mount", "--", sys.executable, "-m", "tests.bench.hosts.take", *arguments]


def main(who: str, servers: str, extra: str = "") -> None:
    kernel.mount("tmpfs", "/run", "tmpfs")
    machine = machines.network(int(servers))
    try:
        taken = asyncio.run(ours(machine, extra)) if who == "ours" else by_another(machine)
        if extra == "held":
            taken = msgspec.structs.replace(taken, held=likeness.host(machine))
    finally:
        asyncio.run(unpinned())
        wait_until_gone()
    print(msgspec.json.encode(taken).decode())


async def ours(machine: Machine, extra: str) -> Split:
    """One round of the supervisor, and another that finds nothing to do."""
    profile = cProfile.Profile()
    async with Box(ignore) as box:
        reconciler = Reconciler(box)
        if extra == "profile":
            await box.namespaces.call(profile.enable)
        began, cpu = time.monotonic(), time.process_time()
        outcome = await reconciler.round(machine, "from nothing")
        took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
        if extra == "profile":
            await box.namespaces.call(profile.disable)
        left, _ = await reconciler.look(machine)
    wrong = [*(problem.message for problem in outcome.problems), *(f"left to do: {step}" for step in left)]
    if wrong:
        raise RuntimeError("\n".join(wrong))
    return Split(took_s=took_s, cpu_s=cpu_s, profile=profiles.text(profile) if extra == "profile" else "")


def by_another(machine: Machine) -> Split:
    """The same by hand; the supervisor then finds nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        script = by_hand.write(machine, Path(folder))
        began = time.monotonic()
        by_hand.make(script)
        took_s = time.monotonic() - began
    left = asyncio.run(_left(machine))
    if left:
        raise RuntimeError(f"by hand it is another machine: {'; '.join(left)}")
    return Split(took_s=took_s)


async def unpinned() -> None:
    """Unpin all namespaces."""
    namespaces = Namespaces()
    try:
        for name in await namespaces.call(namespaces.names):
            await namespaces.call(lambda name=name: namespaces.remove(name))  # type: ignore[misc]
    finally:
        namespaces.close()


def wait_until_gone() -> None:
    """Return when the namespaces' links are gone: the kernel ends a namespace later, and whoever comes next would pay.

    Raises TimeoutError where it takes too long.
    """
    until = time.monotonic() + GONE_WITHIN_S
    while "ar-" in Path("/proc/self/net/dev").read_text():
        if time.monotonic() > until:
            raise TimeoutError("The namespaces that were made do not go away.")
        time.sleep(0.02)


def ignore(_cause: str) -> None:
    """Nobody is woken: the rounds are taken one by one."""


async def _left(machine: Machine) -> Sequence[str]:
    async with Box(ignore) as box:
        steps, _ = await Reconciler(box).look(machine)
    return [str(step) for step in steps]


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Whatever a machine should be and whatever happened to it: one plan mends it, and then there is nothing to do.

What a machine is in the end is read with `ip` and `nft`, and compared with what they said before the damage.
"""

import asyncio
import os
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.host.box import Box
from appliance.supervisor.plan import Step
from appliance.supervisor.reconcile import Reconciler
from appliance.topology import Machine
from tests.unit.host.damage import ADDED, KINDS, ORPHANED, PINS, REPLACED, Damage, damages, machines
from tests.unit.host.place import throwaway
from tests.unit.host.shown import shown, typed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may")

EXAMPLES = 3
DEADLINE_S = 60.0


class Bystanders(list[subprocess.Popen[bytes]]):
    """Processes that are left in namespaces which lost their name."""

    def stay(self, box: Box, namespace: str) -> None:
        """Let one be in a namespace, which lives as long as it does."""
        with box.namespaces.open(namespace) as descriptor:
            command = ["nsenter", f"--net=/proc/self/fd/{descriptor}", "sleep", "infinity"]
            self.append(subprocess.Popen(command, pass_fds=(descriptor,)))

    def go(self) -> None:
        """End them all."""
        while self:
            process = self.pop()
            process.kill()
            process.wait(timeout=10)


def is_there(box: Box, namespace: str) -> bool:
    """Whether a namespace is pinned."""
    return box.namespaces.inode(namespace) is not None


async def happen(box: Box, damage: Damage, bystanders: Bystanders) -> None:
    """Let a damage happen; what it is about may be gone by an earlier one."""
    spaces = box.namespaces
    if damage.command not in PINS:
        if is_there(box, damage.namespace):
            typed(box, damage.namespace, damage.command)
        return
    name = "more" if damage.command == ADDED else damage.namespace
    if damage.command == ORPHANED and is_there(box, name):
        bystanders.stay(box, name)
    await spaces.call(lambda: spaces.remove(name))
    if damage.command in (REPLACED, ORPHANED, ADDED):
        await spaces.call(lambda: spaces.make(name))


def lines(steps: tuple[Step, ...]) -> list[str]:
    """The steps as a person reads them."""
    return [str(step) for step in steps]


async def prove(box: Box, wanted: Machine, happened: list[Damage], bystanders: Bystanders) -> None:
    """Bring the machine to `wanted` from whatever it was, damage it, mend it."""
    reconciler = Reconciler(box)
    async with asyncio.timeout(DEADLINE_S):
        assert (await reconciler.round(wanted, "another machine")).problems == ()
        assert lines((await reconciler.look(wanted))[0]) == []
        before = shown(box, wanted)
        for damage in happened:
            await happen(box, damage, bystanders)
        if all(damage.told for damage in happened):
            told, _ = await reconciler.look(wanted)
            box.look_everywhere()
            assert lines(told) == lines((await reconciler.look(wanted))[0])
        box.look_everywhere()
        outcome = await reconciler.round(wanted, "damage")
        assert outcome.problems == ()
        assert lines((await reconciler.look(wanted))[0]) == []
        box.look_everywhere()
        assert lines((await reconciler.look(wanted))[0]) == []
        assert shown(box, wanted) == before


@pytest.mark.parametrize(("where", "kind"), KINDS, ids=[" ".join(each) for each in KINDS])
def test_one_plan_mends_it_whatever_the_machine_is_and_whatever_else_happens(
    tmp_path: Path, where: str, kind: str
) -> None:
    bystanders, stack = Bystanders(), AsyncExitStack()
    with asyncio.Runner() as runner:
        box = runner.run(stack.enter_async_context(throwaway(tmp_path)))

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(data=st.data(), wanted=machines(), others=st.lists(st.sampled_from(KINDS), max_size=3))
        def mended(data: st.DataObject, wanted: Machine, others: list[tuple[str, str]]) -> None:
            happened = [data.draw(damages(wanted, *each)) for each in ((where, kind), *others)]
            try:
                runner.run(prove(box, wanted, happened, bystanders))
            finally:
                bystanders.go()

        try:
            mended()
        finally:
            runner.run(stack.aclose())

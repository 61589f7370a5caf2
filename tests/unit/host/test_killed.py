"""The supervisor is killed (SIGKILL) between every two things that it does for an apply; the next one mends it all."""

import asyncio
import multiprocessing
import os
import signal
from itertools import count
from pathlib import Path

import pytest

from appliance.host.box import Box
from appliance.supervisor.reconcile import Reconciler
from appliance.topology import HOST
from tests.unit.host.dying import CARD, apply, wanted
from tests.unit.host.place import said_in, throwaway
from tests.unit.host.shown import shown

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may")

DEADLINE_S = 60.0
MAC = "02:9c:00:00:00:99"
NEVER = 10**6
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.unit.host.dying"])


def folder_of(path: Path, number: int) -> Path:
    """Make a folder for one apply."""
    made = path / str(number)
    made.mkdir()
    return made


def status_of_apply(folder: Path, dies_at: int) -> int | None:
    """Apply in a process of its own; return its exit status."""
    process = PROCESSES.Process(target=apply, args=(folder, dies_at), daemon=True)
    process.start()
    process.join(DEADLINE_S)
    return process.exitcode


async def finished(folder: Path, dies_at: int) -> tuple[bool, dict[str, list[object]]]:
    """Let an apply die and a supervisor start; return whether the apply did, and what `ip` and `nft` say in the end."""
    machine = wanted(folder)
    async with asyncio.timeout(DEADLINE_S), throwaway(folder) as box:
        await said_in(box.namespaces, HOST, *f"ip link add {CARD} address {MAC} type veth peer name cable".split())
        status = await asyncio.to_thread(status_of_apply, folder, dies_at)
        assert status in (0, -signal.SIGKILL)
        async with Box(lambda _cause: None, pinned=folder / "netns", host=folder / "outer" / "host") as another:
            assert CARD in [card.name for card in await another.cards()]
            reconciler = Reconciler(another)
            assert (await reconciler.round(machine, "start")).problems == ()
            another.look_everywhere()
            assert [str(step) for step in (await reconciler.look(machine))[0]] == []
            return status != 0, shown(another, machine)


def test_an_apply_that_is_killed_anywhere_is_finished_by_the_next_supervisor(tmp_path: Path) -> None:
    whole = asyncio.run(finished(folder_of(tmp_path, NEVER), NEVER))
    assert not whole[0]
    for dies_at in count():
        died, found = asyncio.run(finished(folder_of(tmp_path, dies_at), dies_at))
        assert found == whole[1]
        assert not list((tmp_path / str(dies_at)).glob(".new-*"))
        if not died:
            break
    # Less than one for each noun, and it was not killed between all of them.
    machine = wanted(tmp_path)
    assert dies_at > sum(len(getattr(machine, kind)) for kind in machine.__struct_fields__)

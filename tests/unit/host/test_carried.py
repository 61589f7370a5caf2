"""Uplinks that are a VLAN, a bond or both, in the kernel at hand where it has them; tests/vm asks one that does."""

import asyncio
import os
from pathlib import Path

import pytest

from appliance.config import Uplink
from appliance.supervisor.reconcile import Reconciler
from tests.unit.host import carried
from tests.unit.host.place import throwaway

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for machines; the test is skipped where the kernel has neither bonds nor VLANs."""
    missing = asyncio.run(carried.lacks(tmp_path_factory.mktemp("lacks")))
    if missing:
        pytest.skip(" ".join(missing))
    return tmp_path_factory.mktemp("machines")


def test_what_the_kernel_lacks_is_said_once_and_no_longer_when_it_is_not_wanted(tmp_path: Path) -> None:
    async def work() -> None:
        async with asyncio.timeout(60), throwaway(tmp_path) as box:
            await carried.plug(box)
            reconciler = Reconciler(box)
            wanted = carried.machine(Uplink(vlan=7))
            assert (await reconciler.round(wanted, "a VLAN")).problems == ()
            assert carried.said((await reconciler.look(wanted))[0]) == []
            assert reconciler.notes in ((), ("This kernel has no VLANs, so edge/uplink is missing.",))
            assert await carried.taken(reconciler, box, carried.machine(Uplink()), "plain") != []
            assert reconciler.notes == ()

    asyncio.run(work())


def test_every_kind_of_uplink_turns_into_every_other(folder: Path) -> None:
    steps = asyncio.run(carried.turned_into_each_other(folder / "turned"))
    assert "make vlan edge/uplink" in steps["plain to VLAN"]


def test_damage_is_mended(folder: Path) -> None:
    steps = asyncio.run(carried.mended(folder / "mended"))
    assert all(steps.values())


def test_a_port_that_is_pulled_out_leaves_the_bond_and_joins_it_again(folder: Path) -> None:
    asyncio.run(carried.a_port_that_comes_and_goes(folder / "port"))


def test_it_speaks_with_its_neighbour(folder: Path) -> None:
    assert "IEEE 802.3ad" in asyncio.run(carried.spoken_with_neighbour(folder / "neighbour"))

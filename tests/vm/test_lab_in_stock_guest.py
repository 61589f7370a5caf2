"""The lab works as well on a host with systemd as PID 1 and the pure unified hierarchy: seen in a stock Debian 13."""

import re
from pathlib import Path

import msgspec
import pytest

from appliance.host.accelerator import Accelerator
from scripts.building import tree
from tests.vm import stockguest
from tests.vm.conftest import LOGS

pytestmark = pytest.mark.timeout(1800)  # builds the guest where it is not cached

COPIED = ("scripts", "appliance", "firstboot", "tests/vm/guest")
SITE_PACKAGES = f"{stockguest.TREE_IN_GUEST}/usr/lib/alpha-ren/site-packages"


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What guest/trial.py reports; commands are (status, output)."""

    first_process: str
    cgroup: str
    before: list[str]
    up: tuple[int, str]
    running: str
    controllers: str
    outside: str
    down: tuple[int, str]
    after_down: list[str]
    up_again: tuple[int, str]
    ls: str
    after_kill: list[str]


@pytest.fixture(scope="module")
def seen(chosen_accelerator: Accelerator, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The trial's report."""
    disks = stockguest.lay_out(tmp_path_factory.mktemp("disks"), tree.path("qemu").resolve(), COPIED)
    command = (
        f"/usr/bin/env PYTHONPATH={SITE_PACKAGES} /usr/bin/python3 -B "
        f"{stockguest.COPY_IN_GUEST}/tests/vm/guest/trial.py {stockguest.TREE_IN_GUEST}"
    )
    console = stockguest.run(command, disks, chosen_accelerator, Path(LOGS) / "stock-guest.log")
    report = re.search(r"TRIAL (\{.*\})", console)
    assert report is not None, f"the trial did not report; its console ends:\n{console[-3000:]}"
    return msgspec.json.decode(report.group(1), type=Seen)


def test_the_guest_is_the_kind_of_host_that_is_meant(seen: Seen) -> None:
    assert seen.first_process == "systemd"
    assert seen.cgroup == "cgroup2fs"
    assert seen.before == []


def test_a_machine_comes_up_in_the_lab(seen: Seen) -> None:
    assert seen.up[0] == 0, seen.up[1]
    assert seen.running == "running"
    assert seen.outside == "outside"


def test_the_hosts_controllers_reach_the_machine(seen: Seen) -> None:
    assert {"cpu", "memory", "pids"} <= set(seen.controllers.split())


def test_nothing_is_left_when_the_lab_is_down(seen: Seen) -> None:
    assert seen.down[0] == 0, seen.down[1]
    assert seen.after_down == []


def test_nothing_is_left_when_the_lab_was_killed(seen: Seen) -> None:
    assert seen.up_again[0] == 0, seen.up_again[1]
    assert seen.ls == ""
    assert seen.after_kill == []

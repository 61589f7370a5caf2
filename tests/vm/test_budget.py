"""Budgets, on a kernel that keeps them: who uses up his own is killed and started again, and nobody else is."""

import signal

import pytest

from tests.vm.driver import VirtualMachine, lives

VICTIM = "portal"
UNIT = f"alpha-ren-{VICTIM}.service"

GLUTTON = f"""
echo $$ > /sys/fs/cgroup$(systemctl show -P ControlGroup {UNIT})/cgroup.procs
exec python3 -c 'b"x" * (400 << 20)'
"""
"""A process of the component that writes to twice the memory that the component may have."""

LIMITS = {
    "ardpx": (384, 256, 16384),
    "queue": (512, 64, 8192),
    "dns": (192, 64, 8192),
    "portal": (192, 64, 4096),
    "arsrv-1": (256, 64, 4096),
}
"""Memory in MiB, tasks, and open files of a process; the hardware profile says how much memory ARSRV has."""


@pytest.mark.parametrize("instance", LIMITS)
def test_each_has_the_budget_that_it_declares(machine: VirtualMachine, instance: str) -> None:
    memory_mb, tasks, files = LIMITS[instance]
    group = machine.output("systemctl", "show", "-P", "ControlGroup", f"alpha-ren-{instance}.slice")
    kept = machine.output("sh", "-c", f"cd /sys/fs/cgroup{group} && cat memory.max memory.swap.max pids.max")
    assert kept.split() == [str(memory_mb * 2**20), "0", str(tasks)]
    pid = machine.output("systemctl", "show", "-P", "MainPID", f"alpha-ren-{instance}.service")
    assert machine.output("grep", "Max open files", f"/proc/{pid}/limits").split()[3:5] == [str(files)] * 2


def test_the_status_says_what_is_used_and_waited_for(machine: VirtualMachine) -> None:
    status = machine.status()
    assert None not in status["use"]["waits"].values()
    uses = {use["instance"]: use for use in status["instances"]}
    assert {unit["instance"] for unit in status["units"]} == set(uses)
    for instance, (memory_mb, tasks, _) in LIMITS.items():
        use = uses[instance]
        assert 0 < use["memory_mb"] < use["memory_max_mb"] == memory_mb
        assert 0 < use["tasks"] <= use["tasks_max"] == tasks
        assert None not in use["waits"].values()


def test_who_uses_up_his_memory_is_killed_and_started_again_alone(machine: VirtualMachine) -> None:
    before = machine.status()
    assert machine.run("sh", "-c", GLUTTON, deadline_s=120).code == -signal.SIGKILL
    machine.wait_for(f"[ $(systemctl show -P NRestarts {UNIT}) -ge 1 ] && systemctl is-active --quiet {UNIT}")
    machine.wait_for(f"journalctl -b -u alpha-ren-supervisor -o cat | grep '{VICTIM} used up its memory: '")
    machine.wait_until_ready()

    after = machine.status()
    assert lives(after).keys() == lives(before).keys()
    assert {name for name, life in lives(after).items() if life != lives(before)[name]} == {UNIT}
    assert [use["instance"] for use in after["instances"] if use["oom_kills"]] == [VICTIM]
    assert "Failed with result 'oom-kill'." in machine.output("journalctl", "-b", "-u", UNIT, "-o", "cat")

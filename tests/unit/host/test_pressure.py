"""What is used, read from the kernel's files."""

from pathlib import Path

import pytest

from appliance.host.pressure import GroupUse, group_use, machine_use, slice_path
from appliance.topology import Waits

PRESSED = "some avg10={} avg60=0.00 avg300=0.00 total=7\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=1\n"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("alpha-ren-queue.slice", "alpha.slice/alpha-ren.slice/alpha-ren-queue.slice"),
        (
            "alpha-ren-arsrv-1.slice",
            "alpha.slice/alpha-ren.slice/alpha-ren-arsrv.slice/alpha-ren-arsrv-1.slice",
        ),
    ],
)
def test_a_slice_is_where_its_name_says(name: str, path: str) -> None:
    assert slice_path(name) == path


def test_a_group_says_what_it_uses_of_what_it_may_and_what_it_waits_for(tmp_path: Path) -> None:
    folder = tmp_path / slice_path("alpha-ren-dns.slice")
    folder.mkdir(parents=True)
    for name, text in {
        "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
        "memory.current": "104857600\n",
        "memory.max": "max\n",
        "memory.events": "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\n",
        "pids.current": "7\n",
        "pids.max": "64\n",
        "cpu.pressure": PRESSED.format("1.50"),
        "memory.pressure": PRESSED.format("0.00"),
        "io.pressure": "",
    }.items():
        (folder / name).write_text(text)
    assert group_use("alpha-ren-dns.slice", tmp_path) == GroupUse(
        cpu_s=2.5, memory_mb=100.0, memory_max_mb=None, tasks=7, tasks_max=64, oom_kills=3,
        waits=Waits(cpu=1.5, memory=0.0, io=None),
    )  # fmt: skip


def test_what_the_kernel_does_not_count_is_nothing(tmp_path: Path) -> None:
    assert group_use("alpha-ren-dns.slice", tmp_path) == GroupUse()
    use = machine_use(tmp_path)
    assert use.waits == Waits()
    assert 0 < use.memory_mb < use.memory_total_mb
    assert use.cpus >= 1

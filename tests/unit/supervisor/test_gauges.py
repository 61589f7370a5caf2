"""What is told from one look to the next."""

from appliance.contracts.machine import InstanceUse
from appliance.host.pressure import GroupUse
from appliance.supervisor.gauges import Gauges, slices
from appliance.topology import Waits
from tests.unit.supervisor.fakes import small

GROUPS = {"queue": "alpha-ren-queue.slice", "srv-1": "alpha-ren-srv-1.slice"}


def test_each_instance_has_a_slice() -> None:
    found = slices(small().machine)
    assert found["srv-1"] == GROUPS["srv-1"]
    assert set(found) == {"edge", "queue", "names", "mail", "srv-1", "srv-2"}


def test_processor_time_becomes_a_share_at_the_second_look() -> None:
    now = {name: GroupUse(cpu_s=10.0) for name in GROUPS.values()}
    gauges = Gauges(now.__getitem__)
    gauges.look(GROUPS, 100.0)
    assert [use.cpu_percent for use in gauges.instances] == [None, None]
    now[GROUPS["queue"]] = GroupUse(cpu_s=15.0)
    # What was started anew counts from nothing.
    now[GROUPS["srv-1"]] = GroupUse(cpu_s=0.1)
    gauges.look(GROUPS, 110.0)
    assert [use.cpu_percent for use in gauges.instances] == [50.0, 0.0]


def test_the_rest_is_handed_on_as_it_was_read() -> None:
    use = GroupUse(memory_mb=5.0, memory_max_mb=10.0, tasks=1, tasks_max=2, oom_kills=3, waits=Waits(cpu=1.0))
    gauges = Gauges(lambda _name: use)
    gauges.look({"queue": "q.slice"}, 1.0)
    assert gauges.instances == (
        InstanceUse(
            instance="queue", memory_mb=5.0, memory_max_mb=10.0, tasks=1, tasks_max=2, oom_kills=3, waits=Waits(cpu=1.0)
        ),
    )


def test_who_used_up_its_memory_is_told_once_and_not_for_what_was_before_the_first_look() -> None:
    kills = dict.fromkeys(GROUPS.values(), 1)
    gauges = Gauges(lambda name: GroupUse(oom_kills=kills[name]))
    assert gauges.look(GROUPS, 1.0) == ()
    kills[GROUPS["srv-1"]] = 3
    assert gauges.look(GROUPS, 2.0) == ("srv-1",)
    assert gauges.look(GROUPS, 3.0) == ()

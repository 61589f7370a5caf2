"""The difference between what should be and what is."""

import msgspec

from appliance.supervisor.plan import Step, despite, loaded, plan
from appliance.topology import (
    Bridge,
    File,
    Machine,
    Namespace,
    Nic,
    Observed,
    Route,
    Ruleset,
    Unit,
    UnitFact,
    Veth,
    Vlan,
)
from tests.unit.supervisor.fakes import small

FILE = File(path="/run/alpha-ren/x/x.conf", content="a")
UNIT = Unit(
    name="alpha-ren-x.service",
    text="text",
    component="x",
    instance="x",
    namespace="x",
    reload_on=(FILE.path,),
    restart_on=("/run/alpha-ren/x/service.json",),
)
MACHINE = Machine(files=(FILE,), units=(UNIT,))


def seen(wanted: Machine, **changes: object) -> Observed:
    """The wanted machine, found as it should be; `changes` go to the facts of its units."""
    contents = {file.path: file.content for file in wanted.files}
    facts = tuple(
        UnitFact(name=unit.name, text=unit.text, state="active", loaded=loaded(unit, contents)) for unit in wanted.units
    )
    return Observed(machine=wanted, units=tuple(msgspec.structs.replace(fact, **changes) for fact in facts))


def lines(steps: tuple[Step, ...]) -> list[str]:
    """The steps as a person reads them."""
    return [str(step) for step in steps]


def test_a_machine_that_is_as_it_should_be_needs_no_step() -> None:
    wanted = small().machine
    assert plan(wanted, seen(wanted)) == ()


def test_from_nothing_everything_is_made_in_an_order_that_works() -> None:
    wanted = small().machine
    kinds = [step.kind for step in plan(wanted, Observed())]
    assert [kind for number, kind in enumerate(kinds) if kind not in kinds[:number]] == [
        "namespace",
        "ruleset",
        "bridge",
        "veth",
        "route",
        "directory",
        "file",
        "unit",
    ]
    actions = [step.action for step in plan(wanted, Observed()) if step.kind == "unit"]
    assert actions == sorted(actions, key=lambda action: action != "make")


def test_a_step_names_what_differs() -> None:
    leg = Veth(
        namespace="x",
        name="cluster",
        host_name="ar-c1",
        bridge="cluster",
        mac="02:00:00:00:00:01",
        addresses=("10.0.0.1/8",),
    )
    worn = msgspec.structs.replace(leg, addresses=(), up=False)
    assert lines(plan(Machine(veths=(leg,)), Observed(machine=Machine(veths=(worn,))))) == [
        "change veth x/cluster (up, addresses)"
    ]


def test_the_routes_over_a_card_that_changes_are_made_again_after_it() -> None:
    ways = tuple(Route(namespace=name, destination="default", gateway="192.0.2.1") for name in ("x", "y"))
    card = Nic(namespace="x", name="enp0s2", match="enp0s2", leased=())
    vlan = Vlan(namespace="x", name="uplink", parent="enp0s2", tag=7, addresses=("192.0.2.7/24",), leased=())
    before = msgspec.structs.replace(card, found_as="uplink", addresses=vlan.addresses)
    wanted = Machine(nics=(card,), vlans=(vlan,), routes=ways)
    found = Machine(nics=(before,), routes=ways)
    assert lines(plan(wanted, Observed(machine=found))) == [
        "change nic x/enp0s2 (found_as, addresses)",
        "make vlan x/uplink",
        "change route x/default (a link under it changes)",
    ]
    assert plan(wanted, Observed(machine=wanted)) == ()


def test_what_nobody_declares_is_removed_before_anything_is_made() -> None:
    before = Machine(
        bridges=(Bridge(name="old"),),
        namespaces=(Namespace(name="gone"),),
        routes=(Route(namespace="gone", destination="default", gateway="10.0.0.1"),),
        rulesets=(Ruleset(namespace="gone", text=""),),
    )
    fact = UnitFact(name="alpha-ren-gone.service", text="", state="active")
    steps = plan(Machine(bridges=(Bridge(name="new"),)), Observed(machine=before, units=(fact,)))
    assert lines(steps) == [
        "remove unit alpha-ren-gone.service (nobody declares it)",
        "remove route gone/default (nobody declares it)",
        "remove bridge old (nobody declares it)",
        "remove namespace gone (nobody declares it)",
        "make bridge new",
    ]


def test_a_changed_file_reloads_the_unit_that_reads_it() -> None:
    changed = msgspec.structs.replace(MACHINE, files=(msgspec.structs.replace(FILE, content="b"),))
    assert lines(plan(changed, seen(MACHINE))) == [
        f"change file {FILE.path} (content)",
        f"reload unit {UNIT.name} (a file it reads changed)",
    ]


def test_a_unit_that_was_not_reloaded_after_its_file_changed_is_reloaded_later() -> None:
    """The supervisor died between the two steps."""
    changed = msgspec.structs.replace(MACHINE, files=(msgspec.structs.replace(FILE, content="b"),))
    died_between = msgspec.structs.replace(seen(MACHINE), machine=changed)
    assert lines(plan(changed, died_between)) == [f"reload unit {UNIT.name} (a file it reads changed)"]


def test_a_unit_that_systemd_could_not_read_is_restarted() -> None:
    observed = seen(MACHINE)
    units = tuple(msgspec.structs.replace(fact, unread=True) for fact in observed.units)
    assert lines(plan(MACHINE, msgspec.structs.replace(observed, units=units))) == [
        f"restart unit {UNIT.name} (systemd could not read its unit)",
    ]


def test_a_changed_unit_is_written_and_restarted() -> None:
    changed = msgspec.structs.replace(MACHINE, units=(msgspec.structs.replace(UNIT, text="other"),))
    assert lines(plan(changed, seen(MACHINE))) == [
        f"change unit {UNIT.name} (text)",
        f"restart unit {UNIT.name} (its unit changed)",
    ]


def test_units_are_brought_to_run() -> None:
    restart = f"restart unit {UNIT.name}"
    assert lines(plan(MACHINE, seen(MACHINE, state="failed"))) == [f"start unit {UNIT.name} (it is failed)"]
    assert lines(plan(MACHINE, seen(MACHINE, state="activating"))) == []
    assert lines(plan(MACHINE, seen(MACHINE, orphan=True))) == [f"{restart} (its network namespace was replaced)"]
    assert lines(plan(MACHINE, seen(MACHINE, loaded=None))) == [f"{restart} (it is not known what it was started with)"]


def test_a_slice_is_never_restarted_because_that_would_stop_all_that_is_in_it() -> None:
    group = msgspec.structs.replace(UNIT, name="alpha-ren-x.slice", reload_on=(), restart_on=())
    found = seen(Machine(units=(group,)))
    changed = Machine(units=(msgspec.structs.replace(group, text="other"),))
    assert lines(plan(changed, found)) == ["change unit alpha-ren-x.slice (text)"]


def test_a_unit_whose_new_file_was_refused_goes_on_and_hears_of_the_next_one() -> None:
    changed = msgspec.structs.replace(MACHINE, files=(msgspec.structs.replace(FILE, content="b"),))
    [_, reload] = plan(changed, seen(MACHINE))
    assert despite(reload, {FILE.path}, lambda _path: True) is None
    assert despite(reload, {"/another"}, lambda _path: True) == reload
    [_, start] = plan(changed, seen(MACHINE, state="inactive"))
    assert despite(start, {FILE.path}, lambda _path: False) is None
    started = despite(start, {FILE.path}, lambda _path: True)
    assert started is not None
    assert started.loaded is not None
    later = plan(changed, msgspec.structs.replace(seen(changed), units=seen(changed, loaded=started.loaded).units))
    assert lines(later) == [f"restart unit {UNIT.name} (a file it reads at start changed)"]

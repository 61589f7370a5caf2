"""Which instances are virtual machines, and that they move one at a time."""

import msgspec
import pytest

from appliance.component import Placed
from appliance.config import Config, Isolation
from appliance.supervisor.isolation import SETTLED_S, Form, chosen, forms, settled, wanted
from appliance.supervisor.place import place
from appliance.topology import UnitFact
from tests.unit.supervisor.fakes import specs

NAMES = ("srv-1", "srv-2", "srv-3")
ALL_SERVE = frozenset(NAMES)


def placed(isolation: Isolation = "auto") -> tuple[Placed, ...]:
    """The small machine with three servers."""
    found = place(Config(), specs(3))
    return tuple(
        msgspec.structs.replace(each, instance=msgspec.structs.replace(each.instance, isolation=isolation))
        if each.component == "srv"
        else each
        for each in found
    )


def every(form: Form) -> dict[str, Form]:
    """All three servers in one form."""
    return dict.fromkeys(NAMES, form)


def next_of(should: dict[str, Form], is_now: dict[str, Form], serving: frozenset[str]) -> dict[str, Form]:
    """What the three servers are to be next, beside others that are namespaces and serve."""
    others: dict[str, Form] = {each.instance.name: "namespace" for each in placed() if each.component != "srv"}
    result = chosen(placed(), {**others, **should}, {**others, **is_now}, serving | others.keys())
    return {name: result[name] for name in NAMES}


@pytest.mark.parametrize(
    ("isolation", "gain", "possible", "form"),
    [
        ("auto", True, True, "vm"),
        ("auto", False, True, "namespace"),
        ("auto", True, False, "namespace"),
        ("vm", True, True, "vm"),
        ("vm", False, True, "vm"),
        ("vm", True, False, "namespace"),
        ("namespace", True, True, "namespace"),
    ],
)
def test_a_guest_is_made_where_it_is_asked_for_or_where_it_is_a_gain(
    isolation: Isolation, *, gain: bool, possible: bool, form: Form
) -> None:
    should = wanted(placed(isolation), possible=possible, gain=gain)
    assert {name: should[name] for name in NAMES} == every(form)
    assert {form for name, form in should.items() if name not in NAMES} == {"namespace"}


def test_what_an_instance_is_shows_in_its_units() -> None:
    units = ("alpha-ren-srv-1-vm.service", "alpha-ren-srv-2.service")
    facts = [UnitFact(name=name, text="", state="active") for name in units]
    assert forms(NAMES, facts) == {"srv-1": "vm", "srv-2": "namespace"}


def test_a_machine_that_starts_gets_what_is_wanted_at_once() -> None:
    assert next_of(every("vm"), {}, frozenset()) == every("vm")


@pytest.mark.parametrize(("before", "after"), [("namespace", "vm"), ("vm", "namespace")])
def test_servers_move_one_at_a_time_and_only_while_all_others_serve(before: Form, after: Form) -> None:
    now, should = every(before), every(after)
    steps = []
    while now != should:
        then = next_of(should, now, ALL_SERVE)
        [moved] = [name for name in NAMES if then[name] != now[name]]
        steps.append(moved)
        # It is away, and then there but not yet at work: nobody else goes.
        away = {name: form for name, form in now.items() if name != moved}
        for is_now in (away, then):
            waiting = next_of(should, is_now, ALL_SERVE - {moved})
            assert waiting == then
        now = then
    assert steps == list(NAMES)


def test_a_form_that_does_not_work_costs_one_server_and_no_more() -> None:
    now: dict[str, Form] = {**every("namespace"), "srv-1": "vm"}
    assert next_of(every("vm"), now, ALL_SERVE - {"srv-1"}) == now


def test_one_that_serves_nobody_anyway_goes_first() -> None:
    then = next_of(every("vm"), every("namespace"), ALL_SERVE - {"srv-2"})
    assert then == {**every("namespace"), "srv-2": "vm"}


def test_a_change_of_mind_takes_back_the_one_that_moved() -> None:
    now: dict[str, Form] = {**every("namespace"), "srv-1": "vm"}
    assert next_of(every("namespace"), now, ALL_SERVE - {"srv-1"}) == every("namespace")


def test_a_server_counts_once_it_has_been_active_for_a_while() -> None:
    def after(seconds: float, state: str = "active", *, orphan: bool = False) -> bool:
        fact = UnitFact(name="alpha-ren-srv-1-vm.service", text="", state=state, since=1000.0, orphan=orphan)
        return settled("srv-1", [fact], 1000.0 + seconds)

    assert after(SETTLED_S)
    assert not after(SETTLED_S - 1)
    assert not after(SETTLED_S, "activating")
    assert not after(SETTLED_S, orphan=True)
    assert not settled("srv-2", [], 0.0)

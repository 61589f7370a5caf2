"""Which instances are virtual machines, and that no component moves all of its servers at once. Pure.

What an instance is now shows in its units, so nobody has to remember how far a move has got: a supervisor that starts
anew goes on with it.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from appliance.component import Placed
from appliance.config import Isolation
from appliance.supervisor.guest import UNIT
from appliance.supervisor.unit_text import unit_name
from appliance.topology import UnitFact

Form = Literal["vm", "namespace"]

SETTLED_S = 5.0
"""For so long a server must have been active before another may go: proxy and directory have to notice, too."""


def wanted(placed: Iterable[Placed], *, possible: bool, gain: bool) -> dict[str, Form]:
    """Return what each instance should be; `possible` says whether there can be a guest here, `gain` whether one
    is as fast as a server without.
    """
    return {
        each.instance.name: "vm" if possible and _asks_for_one(each.instance.isolation, gain=gain) else "namespace"
        for each in placed
    }


def _asks_for_one(isolation: Isolation, *, gain: bool) -> bool:
    return isolation == "vm" or (isolation == "auto" and gain)


def forms(instances: Iterable[str], facts: Iterable[UnitFact]) -> dict[str, Form]:
    """Return what instances are now; one that has no unit is not among them."""
    names = {fact.name for fact in facts}
    found: dict[str, Form] = {}
    for instance in instances:
        if unit_name(instance, UNIT) in names:
            found[instance] = "vm"
        elif unit_name(instance) in names:
            found[instance] = "namespace"
    return found


def settled(instance: str, facts: Iterable[UnitFact], now: float) -> bool:
    """Whether an instance's process has been there for a while; `now` is Unix time."""
    mains = (unit_name(instance), unit_name(instance, UNIT))
    return any(
        fact.name in mains and fact.state == "active" and not fact.orphan and now - fact.since >= SETTLED_S
        for fact in facts
    )


def chosen(
    placed: Iterable[Placed], should: Mapping[str, Form], is_now: Mapping[str, Form], serving: Collection[str]
) -> dict[str, Form]:
    """Return what each instance is to be in this round.

    Of a component's instances at most one leaves its present form at a time, and only while all others serve: a form
    that does not work here costs one server and no more. One that serves nobody anyway goes first.
    """
    by_component: dict[str, list[str]] = {}
    for each in placed:
        by_component.setdefault(each.component, []).append(each.instance.name)
    result = {name: is_now.get(name, form) for name, form in should.items()}
    for names in by_component.values():
        behind = [name for name in names if result[name] != should[name]]
        if behind:
            first = min(behind, key=lambda name: (name in serving, names.index(name)))
            if all(name in serving for name in names if name != first):
                result[first] = should[first]
    return result

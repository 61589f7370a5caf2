"""The difference between what should be and what is, as steps in the order in which they are taken. Pure."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from appliance.topology import Loaded, Machine, Noun, Observed, Unit, UnitFact

Action = Literal["make", "change", "remove", "start", "restart", "reload", "stop"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do: to `noun`, which is what should be, or for a removal what is; `phase` counts up in order."""

    action: Action
    kind: str
    noun: Noun
    phase: int
    why: str = ""
    loaded: Loaded | None = None

    @property
    def name(self) -> str:
        """Which one of its kind."""
        return self.noun.key

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.name}" + (f" ({self.why})" if self.why else "")


_MAKE = (
    *("namespace", "ruleset", "bridge", "nic", "bond", "vlan", "veth", "tap", "wireguard", "route"),
    *("directory", "file"),
)
"""A namespace has its ruleset before its first link, so that nothing is ever open."""

_REMOVE = ("route", "stray", "vlan", "bond", "wireguard", "tap", "veth", "nic", "bridge", "namespace")
"""Rulesets and files are not removed by themselves: a ruleset goes with its namespace, a file harms nobody."""

_CARRIERS = ("nic", "bond", "vlan")
"""What the way out goes over."""

_FIELDS = {"directory": "directories"}
"""Where a kind's field of Machine is not its plural in `s`."""

_FIRST_MAKE = 1 + len(_REMOVE)
_WRITE_UNITS = _FIRST_MAKE + len(_MAKE)
_RUN_UNITS = _WRITE_UNITS + 1


def plan(desired: Machine, observed: Observed) -> tuple[Step, ...]:
    """Return the steps that make `observed` the `desired` machine; none where it already is."""
    network = list(_network(desired, observed.machine))
    steps = [*network, *_routes_again(desired, observed.machine, network), *_units(desired, observed)]
    return tuple(sorted(steps, key=lambda step: step.phase))


def loaded(unit: Unit, files: Mapping[str, str]) -> Loaded:
    """Return what `unit` is started with, `files` being contents by path."""
    return Loaded(
        text=_digest([unit.text]),
        restart=_digest(files.get(path, "") for path in unit.restart_on),
        reload=_digest(files.get(path, "") for path in unit.reload_on),
    )


def despite(step: Step, failed: Collection[str], present: Callable[[str], bool]) -> Step | None:
    """Return what is left of a unit's step after the files at the paths in `failed` could not be put in place.

    A unit keeps running with its old files, or starts with them where they are `present`; what it is noted to run with
    then is nothing that anybody wants, so it hears of the new files once they come.
    """
    unit = step.noun
    if not isinstance(unit, Unit) or step.loaded is None:
        return step
    hurt = [path for path in (*unit.restart_on, *unit.reload_on) if path in failed]
    if not hurt:
        return step
    if step.action != "start" or not all(present(path) for path in hurt):
        return None
    return msgspec.structs.replace(step, loaded=Loaded(text=step.loaded.text, restart="", reload=""))


def _network(desired: Machine, actual: Machine) -> Iterator[Step]:
    for kind in _MAKE:
        wanted, found = _of_kind(desired, kind), _of_kind(actual, kind)
        phase = _FIRST_MAKE + _MAKE.index(kind)
        for key, noun in wanted.items():
            if key not in found:
                yield Step(action="make", kind=kind, noun=noun, phase=phase)
            elif found[key] != noun:
                yield Step(action="change", kind=kind, noun=noun, phase=phase, why=_differences(noun, found[key]))
    for kind in _REMOVE:
        wanted = _of_kind(desired, kind)
        for key, noun in _of_kind(actual, kind).items():
            if key not in wanted:
                yield Step(
                    action="remove", kind=kind, noun=noun, phase=1 + _REMOVE.index(kind), why="nobody declares it"
                )


def _routes_again(desired: Machine, actual: Machine, steps: Iterable[Step]) -> Iterator[Step]:
    """Yield the routes over links that change: the kernel drops a route with its link, or with its own address."""
    moving = {getattr(step.noun, "namespace", None) for step in steps if step.kind in _CARRIERS}
    found = _of_kind(actual, "route")
    for route in desired.routes:
        if route.namespace in moving and found.get(route.key) == route:
            phase = _FIRST_MAKE + _MAKE.index("route")
            yield Step(action="change", kind="route", noun=route, phase=phase, why="a link under it changes")


def _of_kind(machine: Machine, kind: str) -> dict[str, Noun]:
    nouns: tuple[Noun, ...] = getattr(machine, _FIELDS.get(kind, f"{kind}s"))
    return {noun.key: noun for noun in nouns}


def _differences(wanted: Noun, found: Noun) -> str:
    names = [name for name in wanted.__struct_fields__ if getattr(wanted, name) != getattr(found, name)]
    return ", ".join(names)


def _units(desired: Machine, observed: Observed) -> Iterator[Step]:
    contents = {file.path: file.content for file in desired.files}
    found = {fact.name: fact for fact in observed.units}
    wanted = {unit.name for unit in desired.units}
    for extra in observed.units:
        if extra.name not in wanted:
            yield Step(action="remove", kind="unit", noun=extra, phase=0, why="nobody declares it")
    for unit in desired.units:
        fact = found.get(unit.name)
        target = loaded(unit, contents)
        if fact is None:
            yield Step(action="make", kind="unit", noun=unit, phase=_WRITE_UNITS)
        elif fact.text != unit.text:
            yield Step(action="change", kind="unit", noun=unit, phase=_WRITE_UNITS, why="text")
        yield from _run(unit, fact, target)


def _run(unit: Unit, fact: UnitFact | None, target: Loaded) -> Iterator[Step]:
    """Yield how to bring a unit to run with what it should run with; a unit that systemd is busy with is left to it."""

    def step(action: Action, why: str) -> Step:
        return Step(action=action, kind="unit", noun=unit, phase=_RUN_UNITS, why=why, loaded=target)

    if unit.name.endswith(".slice"):
        # It comes and goes with what is in it, and takes a new text at once.
        return
    if fact is None or fact.state in ("inactive", "failed", "unknown"):
        yield step("start", "" if fact is None else f"it is {fact.state}")
    elif fact.orphan:
        yield step("restart", "its network namespace was replaced")
    elif fact.unread:
        yield step("restart", "systemd could not read its unit")
    elif fact.loaded is None:
        yield step("restart", "it is not known what it was started with")
    elif fact.loaded.text != target.text:
        yield step("restart", "its unit changed")
    elif fact.loaded.restart != target.restart:
        yield step("restart", "a file it reads at start changed")
    elif fact.loaded.reload != target.reload:
        yield step("reload", "a file it reads changed")


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()

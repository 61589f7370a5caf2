"""Whether a change could cut off whoever makes it: it touches a way into the machine. Pure."""

from collections.abc import Iterator

import msgspec

from appliance.topology import ANYWHERE, LANS, FlowRule, Machine, Noun, WireGuard

_NOT_A_WAY = ("rulesets", "flows", "directories", "files", "units")
"""What of a namespace leads nowhere by itself; who may come in is what the table of flows says."""


def ways_touched(before: Machine, after: Machine) -> tuple[str, ...]:
    """Return what changes of the ways in, each in a few words; none where nobody can be cut off.

    Ways in are all that an entrance has (cards, addresses, routes, tunnels), and what is let in from outside. An
    entrance is a namespace with a network card, or with a tunnel that ends in it.
    """
    entrances = {noun.namespace for machine in (before, after) for noun in (*machine.nics, *machine.wireguards)}
    had, has = _of(before, entrances), _of(after, entrances)
    touched = [f"{key} goes" for key in had if key not in has]
    touched += [f"{key} comes" for key in has if key not in had]
    touched += [
        f"{key} changes ({', '.join(differing)})"
        for key in had
        if key in has and (differing := _differing(had[key], has[key]))
    ]
    still_let_in = {flow.key for flow in after.flows}
    touched += [f"{flow.key} closes" for flow in _let_in(before) if flow.key not in still_let_in]
    return tuple(touched)


def _of(machine: Machine, entrances: set[str]) -> dict[str, Noun]:
    """Return what the entrances have, by kind and key."""
    kinds = [kind for kind in machine.__struct_fields__ if kind not in _NOT_A_WAY]
    nouns = ((kind.removesuffix("s"), noun) for kind in kinds for noun in getattr(machine, kind))
    return {f"{kind} {noun.key}": noun for kind, noun in nouns if getattr(noun, "namespace", None) in entrances}


def _differing(before: Noun, after: Noun) -> list[str]:
    if isinstance(before, WireGuard) and isinstance(after, WireGuard) and set(before.peers) <= set(after.peers):
        # Another peer takes nothing from those that there are.
        after = msgspec.structs.replace(after, peers=before.peers)
    return [name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)]


def _let_in(machine: Machine) -> Iterator[FlowRule]:
    tunnels = {wireguard.namespace for wireguard in machine.wireguards}
    for flow in machine.flows:
        if flow.source in (ANYWHERE, *LANS) or (flow.source in tunnels and flow.target != ANYWHERE):
            yield flow

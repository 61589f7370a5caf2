"""The one table of allowed flows: everything any namespace lets through follows from it."""

from collections.abc import Iterable, Iterator

from appliance.component import BadDeclaration, Egress, Placed, Port
from appliance.contracts.access import Rights
from appliance.supervisor.place import found_on, gateway, home
from appliance.topology import ANYWHERE, LANS, FlowRule, LanName, NetworkName

NAME_PORTS = ("dns", "dns-tcp")
"""Ports of these names answer everybody on the machine."""

_SPOKEN: dict[LanName, str] = {"cluster-lan": "cluster LAN", "management": "management LAN"}

QUEUE_PORT = "queue"
"""A port of this name answers every instance that has rights on the queue."""


def flow_table(placed: tuple[Placed, ...]) -> tuple[FlowRule, ...]:
    """Return every allowed flow, each once (the first reason counts); raise BadDeclaration for a peer that does
    not exist.
    """
    table: dict[str, FlowRule] = {}
    for rule in _all(placed):
        table.setdefault(rule.key, rule)
    return tuple(table.values())


def path(source: Placed, target: Placed) -> NetworkName:
    """Return the network on which `source` sends to `target`: a shared one where there is one, else its own home."""
    return found_on(target) if found_on(target) in source.legs else home(source)


def _all(placed: tuple[Placed, ...]) -> Iterator[FlowRule]:
    for source in placed:
        yield from _declared_peers(source, placed)
    yield from _derived(placed)
    for source in placed:
        yield from (_egress(source, egress) for egress in source.instance.egress)
    entrance = gateway(placed)
    lans = [lan for lan in LANS if lan in entrance.instance.legs]
    for target in placed:
        yield from _from_outside(target)
        yield from _from_lans(target, lans)


def _declared_peers(source: Placed, placed: tuple[Placed, ...]) -> Iterator[FlowRule]:
    for peer in source.instance.peers:
        targets = [each for each in placed if each.component == peer.component and each.instance.offers(peer.port)]
        if not targets:
            raise BadDeclaration(f"{source.instance.name} wants to call {peer.component}, which is not there.")
        for target in targets:
            yield from _between(source, target, target.instance.port(peer.port), source.component, peer.reason)


def _derived(placed: tuple[Placed, ...]) -> Iterator[FlowRule]:
    """What follows from offering a name or queue port, and from being exposed through the reverse proxy."""
    entrance = gateway(placed)
    for target in placed:
        for exposure in target.instance.exposures:
            port = target.instance.port(exposure.port)
            yield from _between(entrance, target, port, target.component, f"hands on {exposure.prefix}")
        for port in target.instance.ports:
            for source in placed:
                if port.name in NAME_PORTS:
                    yield from _between(source, target, port, target.component, "looks up names")
                elif port.name == QUEUE_PORT and source.instance.rights != Rights():
                    yield from _between(source, target, port, target.component, "speaks on the queue")


def _between(source: Placed, target: Placed, port: Port, component: str, reason: str) -> Iterable[FlowRule]:
    if source is target:
        return ()
    return (
        FlowRule(
            source=source.instance.name,
            target=target.instance.name,
            protocol=port.protocol,
            port=port.number,
            component=component,
            reason=reason,
            via=path(source, target),
        ),
    )


def _egress(source: Placed, egress: Egress) -> FlowRule:
    return FlowRule(
        source=source.instance.name,
        target=ANYWHERE,
        protocol=egress.protocol,
        port=egress.port,
        component=source.component,
        reason=egress.reason,
        to="" if egress.to == ANYWHERE else egress.to,
        via="uplink" if source.instance.is_gateway else home(source),
    )


def _from_outside(target: Placed) -> Iterator[FlowRule]:
    instance = target.instance
    for port in instance.ports:
        if port.outside:
            if not instance.is_gateway:
                raise BadDeclaration(f"{instance.name} answers the outside on {port.name}, but has no uplink.")
            yield _inwards(target, port, "answers the outside")
    for forward in instance.forwards:
        yield _inwards(target, instance.port(forward.port), f"is handed on from the outside's port {forward.number}")


def _from_lans(target: Placed, lans: Iterable[LanName]) -> Iterator[FlowRule]:
    for lan in lans:
        for port in target.instance.ports:
            if lan in port.lans:
                yield _inwards(target, port, f"answers the {_SPOKEN[lan]}", lan)
        for forward in target.instance.forwards:
            if lan in forward.lans:
                reason = f"is handed on from port {forward.number} on the {_SPOKEN[lan]}"
                yield _inwards(target, target.instance.port(forward.port), reason, lan)


def _inwards(target: Placed, port: Port, reason: str, lan: LanName | None = None) -> FlowRule:
    return FlowRule(
        source=lan or ANYWHERE,
        target=target.instance.name,
        protocol=port.protocol,
        port=port.number,
        component=target.component,
        reason=reason,
        via=(lan or "uplink") if target.instance.is_gateway else home(target),
    )

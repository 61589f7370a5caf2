"""The nftables ruleset of each namespace, written from the table of flows (nft(8)).

Default is to drop, in every direction. What every network needs comes first (answers, loopback, neighbour discovery);
the gateway also gets forwarding, translation, and DHCP where its uplink has that; before a virtual machine all of it is
forwarding. Addresses that may do the same thing share one set.
"""

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from appliance.component import Placed, asking_legs
from appliance.config import Config
from appliance.supervisor.flows import path
from appliance.supervisor.guest import TAP, ends
from appliance.supervisor.guest import mac as guest_mac
from appliance.supervisor.place import found_on, home
from appliance.topology import HOST, LANS, FlowRule, NetworkName, Ruleset

TABLE = "inet alpha-ren"

_ND = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"
_INPUT = (
    "ct state established,related accept",
    "ct state invalid drop",
    'iifname "lo" accept',
    f"{_ND} ip6 hoplimit 255 accept",
)
_OUTPUT = (
    "ct state established,related accept",
    'oifname "lo" accept',
    f"{_ND} ip6 hoplimit 255 accept",
    "icmpv6 type mld2-listener-report accept",
)
_FORWARD = ("ct state established,related accept", "ct state invalid drop")

# DHCPv4 (RFC 2131), DHCPv6 (RFC 8415) and router discovery (RFC 4861) of the gateway's own client, by IP version.
_ASKING_INPUT = {
    4: ("udp sport 67 udp dport 68 accept",),
    6: (
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
        "icmpv6 type nd-router-advert ip6 hoplimit 255 accept",
    ),
}
_ASKING_OUTPUT = {
    4: ("udp sport 68 udp dport 67 accept",),
    6: (
        "ip6 daddr { fe80::/10, ff02::1:2 } udp sport 546 udp dport 547 accept",
        "icmpv6 type nd-router-solicit ip6 hoplimit 255 accept",
    ),
}


_OWN = "fib daddr . iif type local"
"""Sent to an address of the interface it came in on: Linux would take it at any address of the namespace."""


class Where(msgspec.Struct, frozen=True):
    """All of a rule but the addresses that may be many: its chain, interfaces, the one target of a forward, what
    is spoken.
    """

    chain: str
    interfaces: str
    side: str
    spoken: str
    target4: str = ""
    target6: str = ""


class Who(msgspec.Struct, frozen=True):
    """The addresses of one rule that may be many; empty where the family has none, `!= …` for everything but."""

    v4: str
    v6: str


def rulesets(
    config: Config, placed: tuple[Placed, ...], flows: Iterable[FlowRule], guests: Collection[str] = ()
) -> tuple[Ruleset, ...]:
    """Return the ruleset of every instance's namespace and of the host; `guests` are virtual machines behind theirs."""
    by_name = {each.instance.name: each for each in placed}
    flows = tuple(flows)
    texts = [
        Ruleset(namespace=HOST, text=_table({"input": ('iifname "lo" accept',), "output": ('oifname "lo" accept',)}))
    ]
    for each in placed:
        name = each.instance.name
        mine = [flow for flow in flows if each.instance.is_gateway or name in (flow.source, flow.target)]
        text = _of_instance(config, each, by_name, mine, is_guest=name in guests)
        texts.append(Ruleset(namespace=name, text=text))
    return tuple(texts)


def _of_instance(
    config: Config, me: Placed, placed: Mapping[str, Placed], flows: list[FlowRule], *, is_guest: bool
) -> str:
    outside = Who(f"!= {config.network.inner4}", f"!= {config.network.inner6}")
    rules = [rule for flow in flows for rule in _rules(me, placed, flow, outside)]
    if is_guest:
        return _of_guest(config, me, _written(rules, "input"), _written(rules, "output"))
    chains = {
        "input": (*_INPUT, *_written(rules, "input")),
        "output": (*_OUTPUT, *_written(rules, "output")),
        "forward": (*_FORWARD, *_written(rules, "forward")),
    }
    translation: dict[str, tuple[str, ...]] = {}
    if me.instance.is_gateway:
        for leg, versions in asking_legs(config).items():
            for version in versions:
                chains["input"] += tuple(f'iifname "{leg}" {rule}' for rule in _ASKING_INPUT[version])
                chains["output"] += tuple(f'oifname "{leg}" {rule}' for rule in _ASKING_OUTPUT[version])
        translation["prerouting"] = tuple(_forwarded(me, placed.values()))
        translation["postrouting"] = (
            f'oifname "uplink" ip saddr {config.network.inner4} masquerade',
            f'oifname "uplink" ip6 saddr {config.network.inner6} masquerade',
        )
    elif me.instance.wireguard is not None:
        # Who comes in by VPN may reach what this instance may reach, and is seen as this instance.
        tunnel = me.instance.wireguard.name
        chains["input"] += tuple(f'iifname "{tunnel}" {icmp} type echo-request accept' for icmp in ("icmp", "icmpv6"))
        chains["forward"] += tuple(f'iifname "{tunnel}" {rule}' for rule in _written(rules, "output"))
        translation["postrouting"] = (f'iifname "{tunnel}" oifname != "{tunnel}" masquerade',)
    return _table(chains, translation)


def _of_guest(config: Config, me: Placed, inwards: Iterable[str], outwards: Iterable[str]) -> str:
    """Return the ruleset between a guest and the others: what the instance may hear and say passes through.

    The guest's end of the cable is its own, so what comes out of it with another address than the one it was given
    goes nowhere; nothing at all may speak to the namespace itself.
    """
    address = ends(config).guest
    own = f'iifname "{TAP}"'
    chains = {
        "input": (f"{_ND} ip6 hoplimit 255 accept",),
        "output": (f"{_ND} ip6 hoplimit 255 accept", "icmpv6 type mld2-listener-report accept"),
        "forward": (
            f"{own} ether saddr != {guest_mac(me.instance.slot)} drop",
            f"{own} ip saddr != {address.v4} drop",
            f"{own} ip6 saddr != {address.v6} drop",
            *_FORWARD,
            *(f'oifname "{TAP}" ct status dnat {rule}' for rule in inwards),
            *(f"{own} {rule}" for rule in outwards),
        ),
    }
    arrives = f'iifname "{home(me)}" {_OWN}'
    translation = {
        "prerouting": tuple(
            line
            for port in me.instance.ports
            for line in (
                f"meta nfproto ipv4 {arrives} {port.protocol} dport {port.number} dnat ip to {address.v4}",
                f"meta nfproto ipv6 {arrives} {port.protocol} dport {port.number} dnat ip6 to {address.v6}",
            )
        ),
        "postrouting": (f'{own} oifname != "{TAP}" masquerade',),
    }
    return _table(chains, translation)


def _rules(me: Placed, placed: Mapping[str, Placed], flow: FlowRule, outside: Who) -> Iterator[tuple[Where, Who]]:
    """Yield what one flow means in the namespace of `me`."""
    spoken = f"{flow.protocol} dport {flow.port}"
    name = me.instance.name
    source, target = placed.get(flow.source), placed.get(flow.target)
    if flow.target == name:
        if source is None:
            own, who = (f" {_OWN}", Who("", "")) if me.instance.is_gateway else ("", outside)
            yield Where("input", f'iifname "{flow.via}"{own}', "saddr", spoken), who
        else:
            # What comes through the gateway from another network arrives where this instance is found.
            leg = path(source, me) if path(source, me) in me.legs else found_on(me)
            yield Where("input", f'iifname "{leg}"', "saddr", spoken), _sender(source, me)
    elif flow.source == name:
        if target is None:
            who = Who("", "") if me.instance.is_gateway and not flow.to else _destination(flow, outside)
            yield Where("output", f'oifname "{flow.via}"', "daddr", spoken), who
        else:
            yield Where("output", f'oifname "{path(me, target)}"', "daddr", spoken), Who(target.leg.v4, target.leg.v6)
    elif me.instance.is_gateway:
        yield from _passing(flow, source, target, spoken)


def _passing(flow: FlowRule, source: Placed | None, target: Placed | None, spoken: str) -> Iterator[tuple[Where, Who]]:
    """Yield the gateway's forwarding rule for a flow between others, where the flow passes through it."""
    if target is None:
        if source is not None:
            to4, to6 = (flow.to, "") if ":" not in flow.to else ("", flow.to)
            leg = source.legs[home(source)]
            who = Who(leg.v4 if not to6 else "", leg.v6 if not to4 else "")
            yield Where("forward", f'iifname "{home(source)}" oifname "uplink"', "saddr", spoken, to4, to6), who
    elif source is None:
        entrance = flow.source if flow.source in LANS else "uplink"
        interfaces = f'iifname "{entrance}" oifname "{home(target)}" ct status dnat'
        leg = target.legs[home(target)]
        yield Where("forward", interfaces, "daddr", spoken), Who(leg.v4, leg.v6)
    elif found_on(target) not in source.legs:
        interfaces = f'iifname "{home(source)}" oifname "{found_on(target)}"'
        leg = source.legs[home(source)]
        yield Where("forward", interfaces, "saddr", spoken, target.leg.v4, target.leg.v6), Who(leg.v4, leg.v6)


def _sender(source: Placed, target: Placed) -> Who:
    leg = source.legs[path(source, target)]
    return Who(leg.v4, leg.v6)


def _destination(flow: FlowRule, outside: Who) -> Who:
    if not flow.to:
        return outside
    family = ipaddress.ip_network(flow.to, strict=False).version
    return Who(flow.to, "") if family == 4 else Who("", flow.to)


def _forwarded(entrance: Placed, placed: Iterable[Placed]) -> Iterator[str]:
    """Yield the translations of the outside's ports; the client's address stays as it is."""
    for each in placed:
        for forward in each.instance.forwards:
            port = each.instance.port(forward.port)
            leg = each.legs[home(each)]
            ways: tuple[NetworkName, ...] = ("uplink", *forward.lans)
            for way in ways:
                if way in entrance.instance.legs:
                    match = f'iifname "{way}" {_OWN} {port.protocol} dport {forward.number}'
                    yield f"meta nfproto ipv4 {match} dnat ip to {leg.v4}:{port.number}"
                    yield f"meta nfproto ipv6 {match} dnat ip6 to [{leg.v6}]:{port.number}"


def _written(rules: Iterable[tuple[Where, Who]], chain: str) -> tuple[str, ...]:
    """Return the rules of one chain as text, in a fixed order, addresses of equal rules gathered into sets."""
    gathered: dict[Where, set[Who]] = {}
    for where, who in rules:
        if where.chain == chain:
            gathered.setdefault(where, set()).add(who)
    lines: list[str] = []
    for where, everyone in gathered.items():
        if Who("", "") in everyone:
            lines.append(f"{where.interfaces} {where.spoken} accept")
            continue
        for family, addresses, target in (
            ("ip", {who.v4 for who in everyone}, where.target4),
            ("ip6", {who.v6 for who in everyone}, where.target6),
        ):
            narrowed = f"{family} daddr {target} " if target else ""
            lines += [
                f"{where.interfaces} {family} {where.side} {some} {narrowed}{where.spoken} accept"
                for some in _sets(addresses - {""})
            ]
    return tuple(lines)


def _sets(addresses: set[str]) -> Iterator[str]:
    yield from sorted(address for address in addresses if address.startswith("!="))
    plain = sorted((address for address in addresses if not address.startswith("!=")), key=_numeric)
    if plain:
        yield plain[0] if len(plain) == 1 else "{ " + ", ".join(plain) + " }"


def _numeric(address: str) -> tuple[int, int]:
    network = ipaddress.ip_network(address, strict=False)
    return int(network.network_address), network.prefixlen


def _table(chains: Mapping[str, Iterable[str]], translation: Mapping[str, Iterable[str]] | None = None) -> str:
    lines = [f"table {TABLE} {{"]
    for name, rules in chains.items():
        lines += _chain(name, f"type filter hook {name} priority filter; policy drop;", rules)
    for name, rules in (translation or {}).items():
        priority = "dstnat" if name == "prerouting" else "srcnat"
        lines += _chain(name, f"type nat hook {name} priority {priority}; policy accept;", rules)
    return "\n".join([*lines, "}", ""])


def _chain(name: str, head: str, rules: Iterable[str]) -> list[str]:
    return [f"  chain {name} {{", f"    {head}", *(f"    {rule}" for rule in rules), "  }"]

"""Where instances are: from slots to addresses, MAC addresses and names of interfaces."""

from collections.abc import Iterable

from appliance.component import BadDeclaration, ComponentSpec, Instance, Placed, inner_network
from appliance.config import Config
from appliance.contracts.service import Leg
from appliance.topology import NetworkName

HIGHEST_SLOT = 4093
"""The last host number of an IPv4 /20 that is neither its broadcast address nor beyond it."""

NETWORKS: tuple[NetworkName, ...] = ("dmz", "cluster")


def place(config: Config, specs: Iterable[ComponentSpec]) -> tuple[Placed, ...]:
    """Return every instance with its addresses, the gateway first; raise BadDeclaration where declarations clash."""
    placed = [
        Placed(component=spec.name, instance=instance, legs=_legs(config, instance))
        for spec in specs
        for instance in spec.instances
    ]
    _refuse_twins("name", [each.instance.name for each in placed])
    _refuse_twins("slot", [str(each.instance.slot) for each in placed])
    gateways = [each.instance.name for each in placed if each.instance.is_gateway]
    if len(gateways) != 1:
        raise BadDeclaration(f"Exactly one instance must own the uplink, not {len(gateways)}: {', '.join(gateways)}.")
    for each in placed:
        if not each.legs:
            raise BadDeclaration(f"{each.instance.name} has no leg on an inner network.")
    return tuple(sorted(placed, key=lambda each: (not each.instance.is_gateway, each.instance.slot)))


def gateway(placed: Iterable[Placed]) -> Placed:
    """Return the instance that owns the uplink."""
    return next(each for each in placed if each.instance.is_gateway)


def home(placed: Placed) -> NetworkName:
    """Return the inner network on which an instance's default route lies: the first it declares."""
    return next(network for network in placed.instance.legs if network != "uplink")


def found_on(placed: Placed) -> NetworkName:
    """Return the inner network on which the others find an instance (the one of `Placed.leg`)."""
    return "cluster" if "cluster" in placed.legs else "dmz"


def mac(network: NetworkName, slot: int) -> str:
    """Return the locally administered MAC address (IEEE 802, second bit) of a leg."""
    return f"02:9c:00:{NETWORKS.index(network):02x}:{slot >> 8:02x}:{slot & 255:02x}"


def host_end(network: NetworkName, slot: int) -> str:
    """Return the name of a leg's end in the host namespace, at most 15 characters (IFNAMSIZ)."""
    return f"ar-{network[0]}{slot}"


def _legs(config: Config, instance: Instance) -> dict[NetworkName, Leg]:
    if not 1 <= instance.slot <= HIGHEST_SLOT:
        raise BadDeclaration(f"{instance.name} declares slot {instance.slot}, which is not in 1 to {HIGHEST_SLOT}.")
    legs: dict[NetworkName, Leg] = {}
    for network in NETWORKS:
        if network in instance.legs:
            four, six = inner_network(config, network)
            legs[network] = Leg(v4=str(four[instance.slot]), v6=str(six[instance.slot]))
    return legs


def _refuse_twins(what: str, values: list[str]) -> None:
    twins = sorted({value for value in values if values.count(value) > 1})
    if twins:
        raise BadDeclaration(f"Two instances declare the same {what}: {', '.join(twins)}.")

"""From configuration, declarations and facts to what the machine should be. Pure: nothing is read, nothing is done."""

import ipaddress
from collections.abc import Iterable, Mapping

import msgspec

from appliance.component import (
    BadDeclaration,
    ComponentSpec,
    Instance,
    Placed,
    RenderedFile,
    Site,
    UnitSpec,
    inner_network,
)
from appliance.config import Config
from appliance.contracts.access import Access, Rights
from appliance.contracts.letters import EVERY_ADDRESS
from appliance.contracts.service import Leg, ServiceContext
from appliance.host.guest import EMULATOR_MB
from appliance.hwprofile import Budget, Role
from appliance.supervisor import guest
from appliance.supervisor.flows import NAME_PORTS, QUEUE_PORT, flow_table
from appliance.supervisor.keys import next_name
from appliance.supervisor.place import NETWORKS, gateway, home, host_end, mac, place
from appliance.supervisor.ruleset import rulesets
from appliance.supervisor.unit_text import run_directory, service_text, slice_name, slice_text, unit_name
from appliance.supervisor.uplink import UPLINK, beside, links
from appliance.topology import (
    HOST,
    Bridge,
    Directory,
    File,
    Machine,
    Namespace,
    Route,
    Unit,
    Veth,
    WireGuard,
    WireGuardPeer,
)

SUPERVISOR = "supervisor"
SUPERVISOR_RIGHTS = Rights(
    emit=("machine", "machine.repaired"),
    subscribe=("health",),
    call=("*",),
    serve=("supervisor.*",),
    administer=EVERY_ADDRESS,
)

_HOST_SYSCTLS = (("ipv6/conf/default/disable_ipv6", "1"),)
"""Bridges and the host's ends of the legs have no address of their own, not even a link-local one."""

_INNER_SYSCTLS = (
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/autoconf", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
)


_GATEWAY_SYSCTLS = (
    # dhcpcd writes it where it is otherwise, and its sandbox does not let it.
    ("ipv4/conf/default/promote_secondaries", "1"),
    # Who is on one LAN is not told that the gateway has the addresses of another.
    ("ipv4/conf/all/arp_ignore", "1"),
)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration does not say: the uplink's cards and lease, the cards of LANs by role, keys made here,
    hardware, and which instances are virtual machines (`guests`) on what ground.
    """

    uplink_nics: tuple[str, ...] = ()
    lan_nics: Mapping[Role, str] = {}
    uplink_v4: tuple[str, ...] = ()
    uplink_v6: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    public_keys: Mapping[str, str]
    budget: Budget | None = None
    guests: frozenset[str] = frozenset()
    ground: guest.Ground = guest.Ground()


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """The machine as it should be, and the site that its files were rendered from."""

    machine: Machine
    site: Site


def desired(config: Config, specs: Iterable[ComponentSpec], facts: Facts) -> Desired:
    """Return what the machine should be; raise BadDeclaration where declarations cannot all be true."""
    specs = tuple(specs)
    placed = place(config, specs)
    site = Site(
        config=config,
        placed=placed,
        access=_access(placed, facts),
        resolvers=config.network.uplink.resolvers or facts.resolvers,
        uplink_v4=facts.uplink_v4,
        uplink_v6=facts.uplink_v6,
    )
    renders = {spec.name: spec.render for spec in specs}
    flows = flow_table(placed)
    files: list[File] = []
    units: list[Unit] = []
    for each in placed:
        rendered = tuple(renders[each.component](site, each))
        if each.instance.isolation != "namespace":
            guest.expect_fit(each.instance, rendered)
        files += _files(site, each, rendered, facts)
        units += _units(each, rendered, facts)
    carriers = links(config.network.uplink, gateway(placed).instance.name, facts.uplink_nics)
    machine = Machine(
        bridges=tuple(Bridge(name=network) for network in NETWORKS),
        namespaces=(Namespace(name=HOST, sysctls=_HOST_SYSCTLS), *(_namespace(each, facts) for each in placed)),
        nics=(*carriers.nics, *beside(config.network, gateway(placed).instance.name, facts.lan_nics)),
        bonds=carriers.bonds,
        vlans=carriers.vlans,
        veths=tuple(veth for each in placed for veth in _veths(config, each)),
        taps=tuple(guest.tap(config, each.instance) for each in placed if each.instance.name in facts.guests),
        wireguards=tuple(wireguard for each in placed for wireguard in _wireguards(each)),
        routes=tuple(_routes(config, placed)),
        flows=flows,
        rulesets=rulesets(config, placed, flows, facts.guests),
        directories=tuple(directory for each in placed for directory in _directories(each.instance)),
        files=tuple(files),
        units=tuple(units),
    )
    return Desired(machine=machine, site=site)


def wireguard_key_path(instance: str) -> str:
    """Return where the private key of an instance's WireGuard interface is kept."""
    return f"/var/lib/alpha-ren/keys/{instance}.wireguard"


def broker(placed: Iterable[Placed]) -> Placed:
    """Return the instance that offers the queue; raise BadDeclaration where there is none."""
    for each in placed:
        if any(port.name == QUEUE_PORT for port in each.instance.ports):
            return each
    raise BadDeclaration(f"No instance offers a port named {QUEUE_PORT}.")


def _access(placed: tuple[Placed, ...], facts: Facts) -> tuple[Access, ...]:
    """Who may do what on the queue. Instances of one component have one origin: they stand for each other."""
    entries = [
        Access(
            name=each.instance.name,
            public_key=facts.public_keys[each.instance.name],
            rights=each.instance.rights,
            origin=each.component,
        )
        for each in placed
        if each.instance.rights != Rights()
    ]
    return (*entries, Access(name=SUPERVISOR, public_key=facts.public_keys[SUPERVISOR], rights=SUPERVISOR_RIGHTS))


def _namespace(placed: Placed, facts: Facts) -> Namespace:
    instance = placed.instance
    routes = instance.is_gateway or instance.wireguard is not None or instance.name in facts.guests
    sysctls = _INNER_SYSCTLS + (_GATEWAY_SYSCTLS if instance.is_gateway else ())
    return Namespace(name=placed.instance.name, forwarding=routes, sysctls=sysctls)


def _veths(config: Config, placed: Placed) -> Iterable[Veth]:
    slot = placed.instance.slot
    for network, leg in placed.legs.items():
        four, six = inner_network(config, network)
        yield Veth(
            namespace=placed.instance.name,
            name=network,
            host_name=host_end(network, slot),
            bridge=network,
            mac=mac(network, slot),
            isolated=placed.instance.isolated,
            addresses=(f"{leg.v4}/{four.prefixlen}", f"{leg.v6}/{six.prefixlen}"),
        )


def _wireguards(placed: Placed) -> Iterable[WireGuard]:
    spec = placed.instance.wireguard
    if spec is not None:
        yield WireGuard(
            namespace=placed.instance.name,
            name=spec.name,
            listen_port=spec.listen_port,
            addresses=spec.addresses,
            key_file=wireguard_key_path(placed.instance.name),
            peers=tuple(WireGuardPeer(public_key=peer.public_key, allowed=peer.allowed) for peer in spec.peers),
        )


def _routes(config: Config, placed: tuple[Placed, ...]) -> Iterable[Route]:
    way_out = gateway(placed)
    for gateway_address in config.network.uplink.gateways:
        yield Route(
            namespace=way_out.instance.name,
            destination="default6" if ":" in gateway_address else "default",
            gateway=gateway_address,
            device=UPLINK if ipaddress.ip_address(gateway_address).is_link_local else "",
        )
    for each in placed:
        if each is not way_out and home(each) in way_out.legs:
            through: Leg = way_out.legs[home(each)]
            yield Route(namespace=each.instance.name, destination="default", gateway=through.v4)
            yield Route(namespace=each.instance.name, destination="default6", gateway=through.v6)


def _directories(instance: Instance) -> Iterable[Directory]:
    """The instance's own in /run, writable for its units where one asks for that, and what they write outside of /run.

    Other directories in /run are made with the unit (RuntimeDirectory=).
    """
    own = run_directory(instance.name)
    asked = {path for unit in instance.units for path in unit.writable}
    shared = any(own in unit.writable for unit in instance.units if unit.user != "root")
    yield Directory(path=own, mode=0o1777 if shared else 0o755)
    for path in sorted(asked - {own}):
        if not path.startswith("/run/"):
            yield Directory(path=path)


def _files(site: Site, placed: Placed, rendered: Iterable[RenderedFile], facts: Facts) -> Iterable[File]:
    directory = run_directory(placed.instance.name)
    yield File(path=f"{directory}/service.json", content=_service_document(site, placed, facts))
    yield File(path=f"{directory}/resolv.conf", content=_resolv_conf(site.placed))
    for file in rendered:
        yield File(path=f"{directory}/{file.name}", content=file.content, mode=file.mode, check=file.check)
    if placed.instance.name in facts.guests:
        yield from guest.files(placed, site.config, facts.ground, facts.budget)


def _service_document(site: Site, placed: Placed, facts: Facts) -> str:
    queue = broker(site.placed)
    settings = placed.instance.settings
    context = ServiceContext(
        instance=placed.instance.name,
        component=placed.component,
        machine=site.config.machine.name,
        lan=site.config.machine.lan,
        cluster=site.config.machine.cluster,
        queue_endpoint=f"tcp://{queue.leg.v4}:{queue.instance.port(QUEUE_PORT).number}",
        public_key=facts.public_keys[placed.instance.name],
        next_key=facts.public_keys[next_name(placed.instance.name)] if placed.instance.known_outside else "",
        legs=dict(placed.legs.items()),
        behind=guest.ends(site.config).guest if placed.instance.name in facts.guests else None,
        settings=msgspec.Raw(b"{}" if settings is None else msgspec.json.encode(settings)),
    )
    return msgspec.json.format(msgspec.json.encode(context)).decode() + "\n"


def _resolv_conf(placed: Iterable[Placed]) -> str:
    servers = [each.leg for each in placed if any(port.name in NAME_PORTS for port in each.instance.ports)]
    lines = [f"nameserver {address}" for leg in servers for address in (leg.v4, leg.v6)]
    return "\n".join([*lines, "options timeout:2 attempts:2", ""])


def _units(placed: Placed, rendered: tuple[RenderedFile, ...], facts: Facts) -> Iterable[Unit]:
    instance = placed.instance
    is_guest = instance.name in facts.guests
    emulator_mb = EMULATOR_MB if is_guest else 0
    yield Unit(
        name=slice_name(instance.name),
        text=slice_text(placed.component, instance.name, instance.resources, facts.budget, emulator_mb),
        component=placed.component,
        instance=instance.name,
    )
    if is_guest:
        keeper = _service(placed, guest.unit(instance, facts.ground), rendered)
        restarts = (*keeper.restart_on, *guest.restarts(instance.name))
        yield msgspec.structs.replace(keeper, restart_on=restarts)
        return
    for unit in instance.units:
        yield _service(placed, unit, rendered)


def _service(placed: Placed, unit: UnitSpec, rendered: tuple[RenderedFile, ...]) -> Unit:
    instance: Instance = placed.instance
    directory = run_directory(instance.name)
    restarts = [f"{directory}/{file.name}" for file in rendered if unit.name in file.restarts]
    return Unit(
        name=unit_name(instance.name, unit.name),
        text=service_text(placed.component, instance, unit),
        component=placed.component,
        instance=instance.name,
        namespace=instance.name,
        reload_on=tuple(f"{directory}/{file.name}" for file in rendered if unit.name in file.reloads),
        restart_on=(f"{directory}/service.json", f"{directory}/resolv.conf", *restarts),
    )

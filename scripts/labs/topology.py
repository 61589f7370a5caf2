"""What a lab consists of: LANs, machines and outside hosts, read from one strict TOML document.

An empty document is not a lab; `default()` is: one LAN with DHCP, one box on it, one outside host. All addresses follow
from the order of the document, so that a test knows them before anything runs: on a LAN the bridge has the first
address, hosts count from the tenth and machines from the hundredth.
"""

import ipaddress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from appliance.config import Config
from scripts.labs.errors import InvalidTopology

Name = Annotated[str, Meta(pattern=r"^[a-z]([a-z0-9-]{0,20}[a-z0-9])?$")]
NicName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]{1,14}$")]
LanName = Annotated[str, Meta(pattern=r"^[a-z]([a-z0-9-]{0,13}[a-z0-9])?$")]
"""A LAN's name is also that of the host's interface on it, and those end at 15 characters."""
Port = Annotated[int, Meta(ge=1, le=65535)]

HOSTS_FROM = 10
MACHINES_FROM = 100
NIC_NAMES = "enp0s{slot}"
FIRST_NIC_SLOT = 2
"""NICs are named as QEMU's q35 machine shows them: the first is enp0s2."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Lan(_Table, frozen=True, kw_only=True):
    """One layer-2 segment. Without `ipv4` the n-th LAN gets 198.18.n.0/24 (RFC 2544's own range).

    `ipv6` is a /64 that router advertisements announce. With `dhcp` a server hands out addresses, the bridge as the way
    out, and `dns`, or itself: it answers `NAME.test` for every machine and host of the LAN.
    """

    name: LanName
    ipv4: str = ""
    ipv6: str = ""
    dhcp: bool = True
    dns: tuple[str, ...] = ()


class Nic(_Table, frozen=True, kw_only=True):
    """A network card of a machine: the LAN it is plugged into and, where it matters, its name inside."""

    lan: LanName
    name: NicName | None = None


class Machine(_Table, frozen=True, kw_only=True):
    """A box that boots the firmware's /usr.

    `publish` are TCP ports that this computer's loopback forwards to the machine's first card. The configuration is
    `config`, or the text of `config_file` (relative to the topology file); `credentials` are handed over as they are.
    `cmdline` are words that the kernel command line would have on a box, such as `systemd.mask=UNIT`. With `guests` it
    can run virtual machines: their disks are in it, which a box has in its own. `start` = false leaves it off.
    """

    name: Name
    nics: tuple[Nic, ...] = ()
    publish: tuple[Port, ...] = ()
    config: Config | None = None
    config_file: str = ""
    credentials: dict[str, str] = {}
    cmdline: tuple[str, ...] = ()
    guests: bool = False
    start: bool = True


class Host(_Table, frozen=True, kw_only=True):
    """An outside host: namespaces of its own on this computer's file system, with nothing of the firmware in it."""

    name: Name
    lans: tuple[LanName, ...]


class Topology(_Table, frozen=True, kw_only=True):
    """The whole document."""

    lan: tuple[Lan, ...]
    machine: tuple[Machine, ...] = ()
    host: tuple[Host, ...] = ()


def default() -> Topology:
    """Return what `make lab` starts: one box and one outside host on a LAN with DHCP."""
    return Topology(
        lan=(Lan(name="uplink", ipv6="2001:db8:1::/64"),),
        machine=(Machine(name="box", nics=(Nic(lan="uplink"),), publish=(443,)),),
        host=(Host(name="outside", lans=("uplink",)),),
    )


def parse(text: str, folder: Path) -> Topology:
    """Return the topology in `text`, its files read relative to `folder`; raise InvalidTopology where it is wrong."""
    try:
        topology = msgspec.toml.decode(text.encode(), type=Topology)
    except msgspec.DecodeError as error:
        raise InvalidTopology(f"The topology is not valid: {error}.") from error
    check(topology)
    return msgspec.structs.replace(topology, machine=tuple(_with_file(machine, folder) for machine in topology.machine))


def load(path: Path) -> Topology:
    """Return the topology in the file at `path`, or raise InvalidTopology."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTopology(f"The topology at {path} cannot be read: {error}.") from error
    return parse(text, path.parent)


def check(topology: Topology) -> None:
    """Raise InvalidTopology where names collide or point nowhere, or a LAN's networks are no networks."""
    if not topology.lan:
        raise InvalidTopology("The topology has no LAN - at `$.lan`.")
    lans = [lan.name for lan in topology.lan]
    if "lo" in lans:
        raise InvalidTopology("A LAN cannot be called `lo`, like the loopback interface of every host.")
    nodes = [machine.name for machine in topology.machine] + [host.name for host in topology.host]
    for what, names in (("LANs", lans), ("machines or hosts", nodes)):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidTopology(f"Two {what} are called `{twice[0]}`.")
    for machine in topology.machine:
        _check_lans(machine.name, [nic.lan for nic in machine.nics], lans)
        inside = nic_names(machine)
        if len(set(inside)) != len(inside):
            raise InvalidTopology(f"Two cards of machine `{machine.name}` have the same name.")
        if machine.config is not None and machine.config_file:
            raise InvalidTopology(f"Machine `{machine.name}` has both `config` and `config_file`.")
        if machine.publish and not machine.nics:
            raise InvalidTopology(f"Machine `{machine.name}` publishes a port but has no card.")
    for host in topology.host:
        if not host.lans:
            raise InvalidTopology(f"Host `{host.name}` is plugged into no LAN - at `$.host`.")
        _check_lans(host.name, list(host.lans), lans)
    for position in range(len(topology.lan)):
        network4(topology, topology.lan[position].name)
        network6(topology.lan[position])


def _check_lans(owner: str, used: list[str], lans: list[str]) -> None:
    for lan in used:
        if lan not in lans:
            raise InvalidTopology(f"`{owner}` is plugged into the LAN `{lan}`, which does not exist.")
    if len(set(used)) != len(used):
        raise InvalidTopology(f"`{owner}` is plugged into one LAN twice.")


def _with_file(machine: Machine, folder: Path) -> Machine:
    if not machine.config_file:
        return machine
    path = folder / machine.config_file
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTopology(f"The configuration at {path} cannot be read: {error}.") from error
    credentials = {**machine.credentials, "alpha-ren.config": text}
    return msgspec.structs.replace(machine, config_file="", credentials=credentials)


def nic_names(machine: Machine) -> list[str]:
    """Return the names of the machine's cards as its firmware sees them, in order."""
    return [nic.name or NIC_NAMES.format(slot=FIRST_NIC_SLOT + position) for position, nic in enumerate(machine.nics)]


def network4(topology: Topology, lan_name: str) -> ipaddress.IPv4Network:
    """Return the LAN's IPv4 network."""
    position, lan = next((n, lan) for n, lan in enumerate(topology.lan) if lan.name == lan_name)
    try:
        network = ipaddress.IPv4Network(lan.ipv4 or f"198.18.{position}.0/24")
    except ValueError as error:
        raise InvalidTopology(f"LAN `{lan.name}` has no valid IPv4 network: {error}.") from error
    if network.prefixlen > 24:
        raise InvalidTopology(f"LAN `{lan.name}` needs an IPv4 network of /24 or larger.")
    return network


def network6(lan: Lan) -> ipaddress.IPv6Network | None:
    """Return the LAN's IPv6 network, None where it has none."""
    if not lan.ipv6:
        return None
    try:
        network = ipaddress.IPv6Network(lan.ipv6)
    except ValueError as error:
        raise InvalidTopology(f"LAN `{lan.name}` has no valid IPv6 network: {error}.") from error
    if network.prefixlen != 64:
        raise InvalidTopology(f"LAN `{lan.name}` needs a /64 for IPv6: hosts make their own addresses in it.")
    return network


def gateway(topology: Topology, lan: str) -> str:
    """Return the address of the LAN's bridge, where DHCP and DNS are served."""
    return str(network4(topology, lan)[1])


def address(topology: Topology, owner: str, lan: str) -> str:
    """Return the IPv4 address of a machine or host on a LAN (a machine has it by DHCP)."""
    network = network4(topology, lan)
    hosts = [host.name for host in topology.host]
    if owner in hosts:
        return str(network[HOSTS_FROM + hosts.index(owner)])
    return str(network[MACHINES_FROM + [machine.name for machine in topology.machine].index(owner)])


def mac(topology: Topology, machine: str, card: int) -> str:
    """Return the hardware address of a machine's card; it begins with QEMU's own prefix."""
    position = [each.name for each in topology.machine].index(machine)
    return f"52:54:00:1a:{position:02x}:{card:02x}"

"""What an instance is made of where it runs in a virtual machine. Pure.

Its namespace stays as it is, with the leg, the addresses and the place in the table of flows that it has anyway, and is
between the guest and everybody else: what arrives for the instance is translated to the guest, what the guest sends is
seen as the instance's. A TAP device is the cable between the two, and QEMU runs in there, with no other network.
"""

import ipaddress
from collections.abc import Iterable

import msgspec

from appliance.component import (
    PYTHON,
    BadDeclaration,
    Instance,
    Opened,
    Placed,
    RenderedFile,
    UnitSpec,
    subnet,
)
from appliance.config import Config
from appliance.contracts.service import Leg
from appliance.host.guest import (
    GROUP,
    GROUP_NUMBER,
    KVM,
    LONGEST_CREDENTIAL,
    NETWORK_CREDENTIAL,
    RESOLV_CREDENTIAL,
    UNIT_CREDENTIAL,
    Accelerator,
    Guest,
)
from appliance.hwprofile import Budget, cpus_of
from appliance.supervisor.unit_text import (
    SERVICE_DOCUMENT,
    cpus,
    credentials,
    guest_text,
    memory_mb,
    run_directory,
)
from appliance.topology import File, Tap

TAP = "vm"
UNIT = "vm"
"""Both the device and the further unit of an instance are called this."""

CABLES = 3
"""Number of their subnet; all cables are alike, since nobody else ever sees their addresses."""

GUEST_DOCUMENT = "guest.json"
GUEST_UNIT = "guest.service"
GUEST_NETWORK = "guest.network"

POWER_DOWN_S = 20
"""For a guest to stop its component, which drains, and itself."""
MOST_CPUS = 4

KVM_START_S = 120
EMULATED_START_S = 1200
"""In a box that is emulated itself a guest takes minutes; nobody else waits for it."""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What virtual machines stand on here: how a processor is made, whether that is `emulated` in the end, and what
    holds the image's /usr.
    """

    accelerator: Accelerator = "tcg"
    emulated: bool = False
    disks: tuple[str, ...] = ()

    @property
    def is_slow(self) -> bool:
        """Whether a guest takes minutes to start."""
        return self.emulated or self.accelerator == "tcg"


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """Both ends of the cable, as interface addresses in CIDR form, IPv4 and IPv6."""

    near: tuple[str, str]
    far: tuple[str, str]

    @property
    def guest(self) -> Leg:
        """The guest's addresses."""
        four, six = (str(ipaddress.ip_interface(text).ip) for text in self.far)
        return Leg(v4=four, v6=six)


def ends(config: Config) -> Ends:
    """Return the two ends of every cable."""
    four, six = subnet(config, CABLES)
    near, far = ((f"{four[number]}/30", f"{six[number]}/126") for number in (1, 2))
    return Ends(near=near, far=far)


NEAR_MAC = "02:9c:00:fe:00:00"
"""Of the cable's near end: a guest meets nobody else."""


def mac(slot: int) -> str:
    """Return the locally administered MAC address of a guest."""
    return f"02:9c:00:ff:{slot >> 8:02x}:{slot & 255:02x}"


def expect_fit(instance: Instance, rendered: Iterable[RenderedFile]) -> None:
    """Raise BadDeclaration where an instance that may be a virtual machine has what no guest is given."""
    alone = len(instance.legs) == 1 and "uplink" not in instance.legs and instance.wireguard is None
    ours = len(instance.units) == 1 and instance.units[0].exec[0] == PYTHON and not instance.units[0].state_directory
    named = all(len(each.name) <= LONGEST_CREDENTIAL for unit in instance.units for each in unit.credentials)
    if not (alone and ours and named) or instance.forwards or any(True for _ in rendered):
        raise BadDeclaration(f"{instance.name} may be a virtual machine, and has more than one leg and one process.")


def tap(config: Config, instance: Instance) -> Tap:
    """Return the cable's end in the instance's namespace."""
    return Tap(namespace=instance.name, name=TAP, mac=NEAR_MAC, group=GROUP_NUMBER, addresses=ends(config).near)


def unit(instance: Instance, ground: Ground) -> UnitSpec:
    """Return the process that keeps the guest. It has the credentials that the guest's own process is to have."""
    directory = run_directory(instance.name)
    opens = [Opened(name=f"disk{number}", path=path) for number, path in enumerate(ground.disks)]
    if ground.accelerator == "kvm":
        opens.append(Opened(name=KVM, path="/dev/kvm", read_only=False))
    return UnitSpec(
        name=UNIT,
        exec=(PYTHON, "-m", "appliance.host.keeper", f"{directory}/{GUEST_DOCUMENT}"),
        watchdog_s=60,
        credentials=instance.units[0].credentials,
        groups=(GROUP,),
        devices=("/dev/net/tun",),
        opens=tuple(opens),
        writable=(f"{directory}/{UNIT}",),
        start_s=EMULATED_START_S if ground.is_slow else KVM_START_S,
        stop_s=POWER_DOWN_S + 10,
        leads=True,
    )


def files(placed: Placed, config: Config, ground: Ground, budget: Budget | None) -> tuple[File, ...]:
    """Return what the keeper reads, and what it hands to the guest; the service document is the instance's own."""
    instance = placed.instance
    inside = instance.units[0]
    directory = run_directory(instance.name)
    cable = ends(config)
    given = {
        SERVICE_DOCUMENT: f"{directory}/{SERVICE_DOCUMENT}",
        RESOLV_CREDENTIAL: f"{directory}/resolv.conf",
        NETWORK_CREDENTIAL: f"{directory}/{GUEST_NETWORK}",
        UNIT_CREDENTIAL: f"{directory}/{GUEST_UNIT}",
        **{each.name: each.name for each in credentials(instance.name, inside)},
    }
    allowed = cpus(instance.resources, budget)
    # An emulated processor is a thread that waits for the others, so more of them than needed make it slower.
    many = 1 if ground.is_slow or not allowed else min(MOST_CPUS, len(cpus_of(allowed)))
    document = Guest(
        name=instance.name,
        tap=TAP,
        mac=mac(instance.slot),
        cpus=many,
        memory_mb=memory_mb(instance.resources, budget),
        accelerator=ground.accelerator,
        credentials=given,
        qmp=qmp_path(instance.name),
        stop_s=POWER_DOWN_S,
    )
    contents = {
        GUEST_DOCUMENT: msgspec.json.format(msgspec.json.encode(document)).decode() + "\n",
        GUEST_UNIT: guest_text(placed.component, instance, inside),
        GUEST_NETWORK: _network(cable),
    }
    return tuple(File(path=f"{directory}/{name}", content=content) for name, content in contents.items())


def restarts(instance: str) -> tuple[str, ...]:
    """Return the files whose change makes the guest start anew."""
    return tuple(f"{run_directory(instance)}/{name}" for name in (GUEST_DOCUMENT, GUEST_UNIT, GUEST_NETWORK))


def qmp_path(instance: str) -> str:
    """Return the socket at which QEMU is spoken to."""
    return f"{run_directory(instance)}/{UNIT}/qmp.sock"


def _network(cable: Ends) -> str:
    """Return the guest's network in the words of ip(8)."""
    (near4, near6), (far4, far6) = cable.near, cable.far
    lines = [
        "link set lo up",
        "link set eth0 up",
        f"addr add {far4} dev eth0",
        f"addr add {far6} dev eth0 nodad",
        f"route add default via {near4.partition('/')[0]}",
        f"route add default via {near6.partition('/')[0]}",
    ]
    return "\n".join([*lines, ""])

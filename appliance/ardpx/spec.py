"""What ARDPX declares: the gateway with HAProxy in front of all that is exposed, and the uplink's DHCP client."""

from collections.abc import Iterable
from importlib.resources import files
from string import Template

from appliance.ardpx import haproxy
from appliance.component import (
    LAN_LEGS,
    RUN,
    STATE,
    ComponentSpec,
    Credential,
    Instance,
    Placed,
    Port,
    RenderedFile,
    Resources,
    Site,
    UnitSpec,
    asking_legs,
)
from appliance.config import Config
from appliance.topology import NetworkName

NAME = "ardpx"
SLOT = 1
HERE = f"{RUN}/{NAME}"
CONTROL = f"{HERE}/control"
VERSIONS = {(4, 6): "", (4,): "noipv6", (6,): "noipv4"}
"""dhcpcd's word for the IP versions that it does not look after on an interface."""
IDENTITY = f"{STATE}/identity"
HTTPS = Port(name="https", number=443, outside=True, lans=("management",))
HTTP = Port(name="http", number=80, outside=True, lans=("management",))

PROXY = UnitSpec(
    exec=("/usr/sbin/haproxy", "-Ws", "-f", f"{HERE}/haproxy.cfg"),
    reload=("/bin/sh", "-c", "kill -USR2 $MAINPID"),
    kind="notify",
    user="haproxy",
    capabilities=("CAP_NET_BIND_SERVICE",),
    credentials=(Credential(name="console.pem", path=f"{IDENTITY}/console.pem"),),
    writable=(CONTROL,),
    stop_s=5,
)

UPLINK = UnitSpec(
    name="uplink",
    # Told no interface it outlives the one that its configuration allows, which may be pulled out and come again.
    exec=("/usr/sbin/dhcpcd", "-B", "-q", "-f", f"{HERE}/dhcpcd.conf"),
    kind="exec",
    user="root",
    # The last six are for separating its privileges: only a proxy of it stays root, the rest runs as user dhcpcd.
    capabilities=(
        "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE",
        "CAP_SETUID", "CAP_SETGID", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE",
    ),
    # Router advertisements set hop limit and timers, which are sysctls of the namespace.
    writable=(HERE, "/var/lib/dhcpcd", "/run/dhcpcd", "/proc/sys/net"),
    stop_s=5,
)


def declare(config: Config) -> ComponentSpec:
    """Return the gateway of this machine; static addresses need no DHCP client, they come with the interface."""
    gateway = Instance(
        name=NAME,
        slot=SLOT,
        legs=("uplink", "dmz", "cluster", *(LAN_LEGS[role] for role in config.network.sides)),
        ports=(HTTPS, HTTP),
        units=(PROXY, UPLINK) if asking_legs(config) else (PROXY,),
        resources=Resources(memory_mb=384, tasks=256, open_files=16384),
    )
    return ComponentSpec(name=NAME, instances=(gateway,), render=render)


def render(site: Site, placed: Placed) -> Iterable[RenderedFile]:
    """Yield HAProxy's configuration and, where addresses are asked for, dhcpcd's with the script that notes the
    uplink's.
    """
    yield RenderedFile(
        name="haproxy.cfg",
        content=haproxy.render(site.placed, CONTROL),
        # The checker reads the certificate too, from where the unit's credential comes from.
        check=("/usr/bin/env", f"CREDENTIALS_DIRECTORY={IDENTITY}", "/usr/sbin/haproxy", "-c", "-q", "-f", "{path}"),
        reloads=("",),
    )
    uplink = site.config.network.uplink
    asking = asking_legs(site.config)
    if asking:
        yield RenderedFile(name="lease-hook", content=_text("lease_hook.py"), mode=0o755)
        yield RenderedFile(
            name="dhcpcd.conf",
            content=Template(_text("dhcpcd.conf.tmpl")).substitute(
                hook=f"{HERE}/lease-hook",
                machine=site.config.machine.name,
                interfaces=" ".join(asking),
                parts="\n".join(_asking(leg, versions) for leg, versions in asking.items()),
                made_of=f"VLAN {uplink.vlan}, " * bool(uplink.vlan) + ("a bond" if uplink.bond else "a network card"),
            ),
            restarts=(UPLINK.name,),
        )


def _asking(leg: NetworkName, versions: tuple[int, ...]) -> str:
    """Return what dhcpcd is told of one interface: there is one way out, and nobody on a LAN opens another."""
    aside = ("nogateway", "nooption classless_static_routes") if leg != "uplink" else ()
    return "\n".join(line for line in (f"interface {leg}", VERSIONS[versions], *aside) if line)


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")

"""A machine of three small components, standing in for the firmware's own."""

from appliance.component import (
    ComponentSpec,
    Egress,
    Exposure,
    Forward,
    Instance,
    Peer,
    Port,
    RenderedFile,
    UnitSpec,
    WireGuardPeerSpec,
    WireGuardSpec,
)
from appliance.config import Config
from appliance.contracts.access import Rights
from appliance.supervisor.desired import Desired, Facts, desired
from appliance.topology import ANYWHERE

UNIT = UnitSpec(exec=("/usr/bin/python3", "-m", "x"))

EDGE = Instance(
    name="edge",
    slot=1,
    legs=("uplink", "dmz", "cluster"),
    units=(UNIT,),
    ports=(Port(name="https", number=443, outside=True),),
)
QUEUE = Instance(
    name="queue",
    slot=2,
    legs=("cluster",),
    units=(UNIT,),
    ports=(Port(name="queue", number=7156),),
    forwards=(Forward(port="queue", number=7156),),
)
NAMES = Instance(
    name="names",
    slot=5,
    legs=("cluster",),
    units=(UNIT,),
    ports=(Port(name="dns", number=53, protocol="udp"),),
    egress=(Egress(port=53, protocol="udp", reason="asks upstream", to=ANYWHERE),),
)
MAIL = Instance(
    name="mail",
    slot=8,
    legs=("dmz",),
    units=(UNIT,),
    rights=Rights(consume=("notice.mail",)),
    egress=(Egress(port=25, reason="sends mail", to="192.0.2.0/24"),),
)


def server(number: int) -> Instance:
    """One of several alike."""
    return Instance(
        name=f"srv-{number}",
        slot=256 + number,
        legs=("cluster",),
        units=(UNIT,),
        isolated=True,
        isolation="auto",
        ports=(Port(name="hooks", number=7180),),
        rights=Rights(publish=("flow.*",)),
        exposures=(Exposure(prefix="/hooks/", port="hooks", check="/health"),),
        peers=(Peer(component="mail-not-there", port="x", reason=""),) if number < 0 else (),
        egress=(Egress(port=80, reason="delivers"), Egress(port=443, reason="delivers")),
    )


VPN = Instance(
    name="vpn",
    slot=7,
    legs=("dmz",),
    units=(),
    peers=(Peer(component="edge", port="https", reason="opens the console"),),
    ports=(Port(name="wireguard", number=51820, protocol="udp"),),
    forwards=(Forward(port="wireguard", number=51820),),
    wireguard=WireGuardSpec(
        name="wg",
        listen_port=51820,
        addresses=("10.157.0.1/24",),
        peers=(WireGuardPeerSpec(public_key="K" * 43 + "=", allowed=("10.157.0.2/32",)),),
    ),
)


def specs(servers: int = 2, *, vpn: bool = False) -> tuple[ComponentSpec, ...]:
    """What the components of the small machine declare."""
    found = [
        ComponentSpec(name="edge", instances=(EDGE,)),
        ComponentSpec(name="queue", instances=(QUEUE,)),
        ComponentSpec(
            name="names",
            instances=(NAMES,),
            render=lambda site, _placed: (
                RenderedFile(name="names.conf", content=" ".join(site.resolvers) + "\n", reloads=("",)),
            ),
        ),
        ComponentSpec(name="mail", instances=(MAIL,)),
        ComponentSpec(name="srv", instances=tuple(server(number) for number in range(1, servers + 1))),
    ]
    if vpn:
        found.append(ComponentSpec(name="vpn", instances=(VPN,)))
    return tuple(found)


class Keys(dict[str, str]):
    """A public key for every name."""

    def __missing__(self, name: str) -> str:
        return f"key of {name}"


def small(servers: int = 2, *, vpn: bool = False, **facts: object) -> Desired:
    """The small machine as it should be."""
    known = {"public_keys": Keys(), **facts}
    return desired(Config(), specs(servers, vpn=vpn), Facts(**known))  # type: ignore[arg-type]

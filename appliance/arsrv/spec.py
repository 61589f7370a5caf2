"""What ARSRV declares: n integration servers, all active, balanced by the reverse proxy."""

import msgspec

from appliance.arsrv.targets import NOBODYS
from appliance.component import PYTHON, ComponentSpec, Egress, Exposure, Instance, Peer, Port, Resources, UnitSpec
from appliance.config import Config
from appliance.contracts.access import Rights

FIRST_SLOT = 256
HOOKS = Port(name="hooks", number=7180)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`port` takes webhooks; users' flows may not deliver to `inner`, the box's networks, nor to `forbidden`."""

    port: int = HOOKS.number
    inner: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = NOBODYS


def declare(config: Config) -> ComponentSpec:
    """Return the integration servers `arsrv-1` to `arsrv-n`."""
    return ComponentSpec(
        name="arsrv", instances=tuple(_instance(config, number) for number in range(1, config.arsrv.count + 1))
    )


def _instance(config: Config, number: int) -> Instance:
    name = f"arsrv-{number}"
    return Instance(
        name=name,
        slot=FIRST_SLOT + number,
        legs=("cluster",),
        isolated=True,
        isolation=config.arsrv.isolation,
        units=(UnitSpec(exec=(PYTHON, "-m", "appliance.arsrv.service"), watchdog_s=20, stop_s=15),),
        ports=(HOOKS,),
        peers=(
            Peer(component="queue", port="queue", reason="takes work and puts messages on disk"),
            Peer(component="dns", port="dns", reason="resolves the targets of deliveries"),
            Peer(component="dns", port="dns-tcp", reason="resolves the targets of deliveries with long answers"),
            Peer(component="arhav", port="selftest", reason="delivers the built-in journey check"),
        ),
        egress=tuple(Egress(port=port, reason="deliveries to systems outside") for port in config.arsrv.egress_ports),
        exposures=(Exposure(prefix="/hooks/", port=HOOKS.name, check="/health", repeatable=True),),
        rights=Rights(
            publish=("flow.*",),
            consume=("flow.*",),
            subscribe=("flows",),
            call=("arclst.join",),
            serve=(f"{name}.ping",),
        ),
        resources=Resources(work="compute", memory_mb=384, tasks=64, cpu_weight=200, open_files=4096),
        settings=Settings(inner=(config.network.inner4, config.network.inner6)),
    )

"""What ARCLST declares: one instance that keeps the cluster's state."""

import msgspec

from appliance.component import PYTHON, ComponentSpec, Instance, Peer, Resources, UnitSpec
from appliance.config import Config
from appliance.contracts.access import Rights

SLOT = 3


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`egress_ports` are those the firewall lets deliveries use, so that a flow that could never work is refused."""

    egress_ports: tuple[int, ...] = (80, 443)


def declare(config: Config) -> ComponentSpec:
    """Return the one instance."""
    return ComponentSpec(
        name="arclst",
        instances=(
            Instance(
                name="arclst",
                slot=SLOT,
                legs=("cluster",),
                units=(UnitSpec(exec=(PYTHON, "-m", "appliance.arclst.service"), watchdog_s=20, state_directory=True),),
                peers=(
                    Peer(component="queue", port="queue", reason="answers calls and publishes the cluster's state"),
                ),
                rights=Rights(serve=("arclst.*",), emit=("members", "flows"), call=("supervisor.pair",)),
                resources=Resources(memory_mb=192, tasks=32),
                settings=Settings(egress_ports=config.arsrv.egress_ports),
            ),
        ),
    )

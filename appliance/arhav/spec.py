"""What ARHAV declares: one instance that probes the servers and checks the box's own journey."""

import msgspec

from appliance.component import (
    PYTHON,
    STATE,
    ComponentSpec,
    Credential,
    Instance,
    Peer,
    Port,
    Resources,
    UnitSpec,
    inner_network,
)
from appliance.config import Config
from appliance.contracts.access import Rights

SLOT = 4
GATEWAY_SLOT = 1
SELFTEST = Port(name="selftest", number=7182)
CA_CREDENTIAL = "ca.pem"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`entry` is the URL of the built-in flow's webhook, as seen from inside; `port` is where it delivers to."""

    entry: str
    port: int = SELFTEST.number


def declare(config: Config) -> ComponentSpec:
    """Return the one instance."""
    gateway = inner_network(config, "cluster")[0][GATEWAY_SLOT]
    return ComponentSpec(
        name="arhav",
        instances=(
            Instance(
                name="arhav",
                slot=SLOT,
                legs=("cluster",),
                units=(
                    UnitSpec(
                        exec=(PYTHON, "-m", "appliance.arhav.service"),
                        watchdog_s=20,
                        credentials=(Credential(name=CA_CREDENTIAL, path=f"{STATE}/identity/ca.pem"),),
                    ),
                ),
                ports=(SELFTEST,),
                peers=(
                    Peer(component="queue", port="queue", reason="probes the servers, publishes order and health"),
                    Peer(
                        component="ardpx",
                        port="https",
                        reason="sends the built-in journey check in as the outside does",
                    ),
                ),
                rights=Rights(subscribe=("members",), emit=("order", "health"), call=("*.ping", "arclst.flow.put")),
                resources=Resources(memory_mb=192, tasks=32),
                settings=Settings(entry=f"https://{gateway}/hooks/_selftest"),
            ),
        ),
    )

"""What the portal declares: one instance, behind the reverse proxy at `/portal/`."""

from appliance.component import PYTHON, ComponentSpec, Exposure, Instance, Peer, Port, Resources, UnitSpec
from appliance.config import Config
from appliance.contracts.access import Rights
from appliance.web.settings import ConsoleSettings

SLOT = 6
HTTP = Port(name="http", number=7191)


def declare(config: Config) -> ComponentSpec:
    """Return the portal of this machine."""
    portal = Instance(
        name="portal",
        slot=SLOT,
        legs=("cluster",),
        ports=(HTTP,),
        peers=(Peer(component="queue", port="queue", reason="changes flows through calls"),),
        exposures=(Exposure(prefix="/portal/", port=HTTP.name, check="/portal/health"),),
        rights=Rights(subscribe=("flows",), call=("arclst.session", "arclst.flow.put", "arclst.flow.delete")),
        units=(UnitSpec(exec=(PYTHON, "-m", "appliance.portal.service"), watchdog_s=30),),
        resources=Resources(memory_mb=192, open_files=4096),
        settings=ConsoleSettings(port=HTTP.number),
    )
    return ComponentSpec(name="portal", instances=(portal,))

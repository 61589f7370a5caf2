"""What ARWADM declares: n consoles, each in a namespace of its own, all behind the reverse proxy at `/`."""

from appliance.component import PYTHON, ComponentSpec, Exposure, Instance, Peer, Port, Resources, UnitSpec
from appliance.config import Config
from appliance.contracts.access import Rights
from appliance.contracts.letters import EVERY_ADDRESS
from appliance.web.settings import ConsoleSettings

FIRST_SLOT = 16
HTTP = Port(name="http", number=7190)
RIGHTS = Rights(
    subscribe=("machine", "order", "health"),
    call=(
        *("arclst.setup", "arclst.setup.state", "arclst.login", "arclst.logout", "arclst.session"),
        *("queue.stats", "queue.recent", "queue.browse", "queue.peek", "queue.requeue", "queue.purge"),
        *("bridge.routes", "supervisor.confirm", "supervisor.revert"),
    ),
    administer=EVERY_ADDRESS,
)


def declare(config: Config) -> ComponentSpec:
    """Return one instance per configured console."""
    consoles = tuple(_console(number) for number in range(1, config.arwadm.count + 1))
    return ComponentSpec(name="arwadm", instances=consoles)


def _console(number: int) -> Instance:
    return Instance(
        name=f"arwadm-{number}",
        slot=FIRST_SLOT + number,
        legs=("cluster",),
        ports=(HTTP,),
        peers=(Peer(component="queue", port="queue", reason="shows the cluster and acts through calls"),),
        exposures=(Exposure(prefix="/", port=HTTP.name, check="/health"),),
        rights=RIGHTS,
        units=(UnitSpec(exec=(PYTHON, "-m", "appliance.arwadm.service"), watchdog_s=30),),
        resources=Resources(memory_mb=192, open_files=4096),
        settings=ConsoleSettings(port=HTTP.number),
    )

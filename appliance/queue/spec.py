"""What the queue declares: one broker, on the cluster network for the components and on a socket for the host."""

from collections.abc import Iterable

import msgspec

from appliance.component import (
    PYTHON,
    RUN,
    ComponentSpec,
    Instance,
    Placed,
    Port,
    RenderedFile,
    Resources,
    Site,
    UnitSpec,
    inner_network,
)
from appliance.config import Config
from appliance.contracts.access import AccessList
from appliance.queue.settings import BrokerSettings

NAME = "queue"
SLOT = 2
HERE = f"{RUN}/{NAME}"
SOCKET = f"{HERE}/ipc/broker.sock"
"""Where the host's side finds the broker; its directory is the broker's own."""

QUEUE = Port(name="queue", number=7156)
ACCESS_FILE = "access.json"


def declare(config: Config) -> ComponentSpec:
    """Return the broker of this machine."""
    address = inner_network(config, "cluster")[0][SLOT]
    broker = Instance(
        name=NAME,
        slot=SLOT,
        legs=("cluster",),
        ports=(QUEUE,),
        units=(
            UnitSpec(
                exec=(PYTHON, "-m", "appliance.queue.service"),
                watchdog_s=30,
                state_directory=True,
                writable=(f"{HERE}/ipc",),
                stop_s=20,
            ),
        ),
        # It answers everybody: nothing on the machine may be starved by what the integration servers compute.
        resources=Resources(memory_mb=512, tasks=64, cpu_weight=400),
        settings=BrokerSettings(
            bind=(f"tcp://{address}:{QUEUE.number}", f"ipc://{SOCKET}"),
            access_file=f"{HERE}/{ACCESS_FILE}",
            limits=config.queue.limits,
        ),
    )
    return ComponentSpec(name=NAME, instances=(broker,), render=render)


def render(site: Site, _placed: Placed) -> Iterable[RenderedFile]:
    """Yield the list of keys; the broker reads it again when it changes, so nothing is restarted."""
    content = msgspec.json.format(msgspec.json.encode(AccessList(entries=site.access)), indent=2).decode()
    yield RenderedFile(name=ACCESS_FILE, content=content + "\n")

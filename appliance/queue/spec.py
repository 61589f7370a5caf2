"""What the queue declares: one broker, on the cluster network for the components and on a socket for the host; and the
bridge, where there are routes to other clusters, and the gate, where there are peers on them.
"""

import ipaddress
from collections.abc import Iterable

import msgspec

from appliance.component import (
    PYTHON,
    RUN,
    STATE,
    ComponentSpec,
    Credential,
    Egress,
    Forward,
    Instance,
    Placed,
    Port,
    RenderedFile,
    Resources,
    Site,
    UnitSpec,
    inner_network,
)
from appliance.config import QUEUE_PORT, Config, QueuePeer, QueueRoute
from appliance.contracts.access import Access, AccessList, Rights
from appliance.contracts.service import CURVE_CREDENTIAL
from appliance.queue.settings import BridgeSettings, BrokerSettings, GateSettings, RouteSettings

NAME = "queue"
SLOT = 2
HERE = f"{RUN}/{NAME}"
SOCKET = f"{HERE}/ipc/broker.sock"
"""Where the host's side finds the broker; its directory is the broker's own."""

QUEUE = Port(name="queue", number=QUEUE_PORT)
ACCESS_FILE = "access.json"
GATE_SOCKET = f"{HERE}/ipc/gate.sock"
GATE = Port(name="gate", number=QUEUE.number)
GATE_SLOT = 9
GATE_MEMORY_MB = 384
BRIDGE = "bridge"
BRIDGE_SLOT = 10


def declare(config: Config) -> ComponentSpec:
    """Return the broker of this machine."""
    address = inner_network(config, "cluster")[0][SLOT]
    settings = BrokerSettings(
        bind=(f"tcp://{address}:{QUEUE.number}", f"ipc://{SOCKET}"),
        gate_socket=GATE_SOCKET,
        access_file=f"{HERE}/{ACCESS_FILE}",
        limits=config.queue.limits,
    )
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
        resources=Resources(memory_mb=512, tasks=64, cpu_weight=400, open_files=8192),
        settings=settings,
    )
    gates = (_gate(config, settings),) if config.queue.peers else ()
    bridges = (_bridge(config.queue.routes),) if config.queue.routes else ()
    return ComponentSpec(name=NAME, instances=(broker, *gates, *bridges), render=render)


def _gate(config: Config, broker: BrokerSettings) -> Instance:
    """In the DMZ, with a memory of its own, and nothing but a socket between it and the broker."""
    four, six = (network[GATE_SLOT] for network in inner_network(config, "dmz"))
    return Instance(
        name=GATE.name,
        slot=GATE_SLOT,
        legs=("dmz",),
        ports=(GATE,),
        forwards=(Forward(port=GATE.name, number=GATE.number, lans=("cluster-lan",)),),
        units=(
            UnitSpec(
                exec=(PYTHON, "-m", "appliance.queue.gate"),
                watchdog_s=30,
                # It speaks with the broker's key, not with one of its own.
                credentials=(Credential(name=CURVE_CREDENTIAL, path=f"{STATE}/keys/{NAME}.secret"),),
            ),
        ),
        resources=Resources(memory_mb=GATE_MEMORY_MB, tasks=16, cpu_weight=200, open_files=4096),
        settings=GateSettings(
            bind=(f"tcp://{four}:{GATE.number}", f"tcp://[{six}]:{GATE.number}"),
            broker=f"ipc://{broker.gate_socket}",
            access_file=broker.access_file,
            max_body=broker.max_body,
            memory_mb=GATE_MEMORY_MB,
        ),
    )


def _bridge(routes: tuple[QueueRoute, ...]) -> Instance:
    """In a namespace of its own: nothing else of the queue gets out of the machine."""
    everything = tuple(f"{route.to}/*" for route in routes)
    return Instance(
        name=BRIDGE,
        slot=BRIDGE_SLOT,
        legs=("cluster",),
        known_outside=True,
        egress=tuple(_egress(route) for route in routes),
        units=(UnitSpec(exec=(PYTHON, "-m", "appliance.queue.bridge"), watchdog_s=30, stop_s=20),),
        rights=Rights(consume=everything, call=("queue.browse",), serve=("bridge.*",), administer=everything),
        # A route has at most some 36 MiB of bodies in hand, and what it sends or hears is there several times.
        resources=Resources(memory_mb=96 + 160 * len(routes), tasks=16 + 4 * len(routes), cpu_weight=200),
        settings=BridgeSettings(
            routes=tuple(
                RouteSettings(
                    to=route.to,
                    endpoint="tcp://{}:{}".format(*route.entrance),
                    server_key=route.server_key,
                    next_key=route.next_key or "",
                    messages_per_s=route.messages_per_s,
                    bytes_per_s=route.bytes_per_s,
                )
                for route in routes
            )
        ),
    )


def _egress(route: QueueRoute) -> Egress:
    host, port = route.entrance
    reason = f"brings messages to the cluster {route.to}"
    try:
        return Egress(port=port, reason=reason, to=str(ipaddress.ip_network(host.strip("[]"))))
    except ValueError:
        return Egress(port=port, reason=reason)


def _access(peer: QueuePeer, key: str) -> Access:
    """Return what the bridge of another cluster may do here; what is its own has an origin that fits all brokers."""
    relay = "*/*/*" if peer.transit else f"{peer.name}/*"
    rights = Rights(publish=peer.publish, relay=(relay,))
    return Access(name=peer.name, public_key=key, rights=rights, origin=f"{peer.name}/{BRIDGE}", outside=True)


def render(site: Site, placed: Placed) -> Iterable[RenderedFile]:
    """Yield the list of keys; the broker reads it again when it changes, so nothing is restarted."""
    if placed.instance.name != NAME:
        return
    queue = site.config.queue
    own = {access.public_key for access in site.access}
    # A list with a key twice is no list.
    peers = (_access(peer, key) for peer in queue.peers for key in peer.keys if key not in own)
    listed = AccessList(entries=(*site.access, *peers), routes=tuple(route.to for route in queue.routes))
    content = msgspec.json.format(msgspec.json.encode(listed), indent=2).decode()
    yield RenderedFile(name=ACCESS_FILE, content=content + "\n")

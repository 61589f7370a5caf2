"""Where a client finds the broker, and who it is there."""

import msgspec

from appliance.contracts.service import CURVE_CREDENTIAL, ServiceContext, credential
from appliance.queue.keys import Keys


class Connection(msgspec.Struct, frozen=True):
    """Where the broker is, its public key, who we are, and the cluster whose names may be written short."""

    endpoint: str
    server_key: str
    keys: Keys
    lan: str
    cluster: str


def connection_of(context: ServiceContext) -> Connection:
    """Return the connection of a component process, its secret read from the systemd credential."""
    keys = Keys(public=context.public_key, secret=credential(CURVE_CREDENTIAL))
    return Connection(context.queue_endpoint, context.queue_key, keys, context.lan, context.cluster)

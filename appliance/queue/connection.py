"""Where a client finds the broker, and who it is there."""

import msgspec

from appliance.contracts.service import CURVE_CREDENTIAL, ServiceContext, credential, server_keys
from appliance.queue.keys import Keys


class Connection(msgspec.Struct, frozen=True):
    """Where the broker is, its public key, who we are, and the cluster whose names may be written short.

    `next_key` is the public key that the broker will have one day, where that is known already.
    """

    endpoint: str
    server_key: str
    keys: Keys
    lan: str
    cluster: str
    next_key: str = ""


def connection_of(context: ServiceContext) -> Connection:
    """Return the connection of a component process, its secret read from the systemd credential."""
    keys = Keys(public=context.public_key, secret=credential(CURVE_CREDENTIAL))
    server_key, *following = server_keys()
    next_key = following[0] if following else ""
    return Connection(context.queue_endpoint, server_key, keys, context.lan, context.cluster, next_key)

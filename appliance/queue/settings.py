"""What the broker and the bridge can be told; the component's `spec.py` fills it in."""

from typing import Annotated

import msgspec
from msgspec import Meta

from appliance.config import QueueLimit

Seconds = Annotated[float, Meta(gt=0, le=86400 * 30)]
Count = Annotated[int, Meta(ge=1)]


class BrokerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`bind` are ZeroMQ endpoints, `gate_socket` is the path of the UNIX socket where the gate finds the broker;
    `access_file` is an AccessList in JSON, read again when it changes or at SIGHUP.

    `lease_s` without a heartbeat and a message goes to another consumer. A publisher hears *busy* at `max_depth`
    messages waiting at one address, `max_bytes` held in all, or less than `min_free_bytes` left on the disk. Settled
    messages are remembered, and with them their ids, for `keep_s`, but never more than `keep_rows` of them (about
    170 bytes of disk each): with more in that time a repeat is known for less, `remembered_s` of `queue.stats`.
    The first of `limits` that matches an address holds for it, in place of `max_depth`. A failed attempt whose consumer
    names no delay waits about `retry_first_s`, twice as long after each further one, at most `retry_most_s`.
    """

    bind: tuple[str, ...]
    gate_socket: str = ""
    access_file: str
    state_directory: str = ""
    lease_s: Seconds = 10.0
    heartbeat_s: Seconds = 2.0
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 8
    retry_first_s: Seconds = 1.0
    retry_most_s: Seconds = 300.0
    max_depth: Count = 1_000_000
    max_bytes: Count = 2 * 2**30
    min_free_bytes: int = 64 * 2**20
    max_body: Count = 20 * 2**20
    keep_s: Seconds = 86400.0
    keep_rows: Count = 2_000_000
    limits: tuple[QueueLimit, ...] = ()


class GateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the peers find the gate, and the gate the broker; `access_file` and `max_body` are the broker's.

    `memory_mb` is what the process may take at most, also where nobody sees to it from outside.
    """

    bind: tuple[str, ...]
    broker: str
    access_file: str
    max_body: Count
    memory_mb: Count


class RouteSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the broker of the cluster `to` (`lan/cluster`) is, its public key, and how much may go there.

    Without an answer for `answer_s` everything in hand is given back.
    """

    to: str
    endpoint: str
    server_key: str
    next_key: str = ""
    messages_per_s: float | None = None
    bytes_per_s: float | None = None
    answer_s: Seconds = 10.0


class BridgeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All routes."""

    routes: tuple[RouteSettings, ...] = ()

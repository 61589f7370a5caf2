"""What the broker answers to `queue.stats`, `queue.recent` and `queue.ping`, for consoles and the CLI to decode."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

StateName = Literal["ready", "leased", "done", "dead", "expired"]


class AddressStats(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Items of one address: how many are `ready` (delayed ones too), `leased`, `dead` now; totals count from the beginning."""

    address: str
    ready: int
    leased: int
    dead: int
    bytes: int
    done_total: int
    dead_total: int
    expired_total: int
    consumers: int


class QueueStats(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to the call `queue.stats` (empty request). `clients` are the names of the keys with an open session."""

    at: float
    addresses: tuple[AddressStats, ...]
    clients: tuple[str, ...]
    bytes: int
    busy: bool


class RecentQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Request of the call `queue.recent`; an empty request means the defaults."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


class RecentMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message without its body. `published_at` and `changed_at` are Unix time; `holder` had or has its last lease."""

    id: str
    origin: str
    address: str
    state: StateName
    attempt: int
    max_attempts: int
    size: int
    published_at: float
    changed_at: float
    holder: str
    reason: str


class RecentMessages(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to the call `queue.recent`: newest first."""

    messages: tuple[RecentMessage, ...]

"""What the queue says about itself: depths per address, and the messages it saw last."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

WorkState = Literal["ready", "leased", "done", "dead", "expired"]
"""`ready` waits (perhaps for its time), `leased` is in a consumer's hands, the other three are ends."""


class Depth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One address: messages waiting, in hand and dead right now, and how many ended in each way from the beginning."""

    address: str
    ready: int = 0
    leased: int = 0
    dead: int = 0
    bytes: int = 0
    done_total: int = 0
    dead_total: int = 0
    expired_total: int = 0
    consumers: int = 0


class QueueStats(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to the call `queue.stats`: depths, the names of who is connected, whether publishers get *busy*."""

    at: float
    depths: tuple[Depth, ...]
    clients: tuple[str, ...] = ()
    bytes: int = 0
    busy: bool = False


class RecentQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Request of `queue.recent`: the newest `limit` messages whose short name matches `only` and not `without`."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    only: str = "*"
    without: str = ""


class RecentMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message without its body.

    Times are Unix seconds, `size` is in bytes, `holder` had or has its last lease, `reason` is why it was retried,
    rejected or died last.
    """

    id: str
    origin: str
    address: str
    state: WorkState
    attempt: int
    max_attempts: int
    size: int
    published_at: float
    changed_at: float
    holder: str = ""
    reason: str = ""


class RecentMessages(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to the call `queue.recent`, newest first."""

    messages: tuple[RecentMessage, ...]

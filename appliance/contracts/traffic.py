"""What the queue says about itself: depths per address, and the messages it saw last."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

WorkState = Literal["ready", "leased", "done", "dead", "expired"]
"""`ready` waits (perhaps for its time), `leased` is in a consumer's hands, the other three are ends."""


class Depth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One address: messages waiting, in hand and dead right now, and how many ended in each way since the store was made."""

    address: str
    ready: int = 0
    leased: int = 0
    dead: int = 0
    done_total: int = 0
    expired_total: int = 0


class QueueStats(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to the call `queue.stats`; `clients` is how many are connected, `store_mb` the size on disk in MiB."""

    at: float
    depths: tuple[Depth, ...]
    clients: int = 0
    store_mb: float = 0.0


class RecentQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Call `queue.recent`: the newest `limit` messages whose address matches `pattern`."""

    pattern: str = "*"
    limit: Annotated[int, Meta(ge=1, le=500)] = 50


class RecentMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message without its body; times are Unix seconds, `reason` is why it was retried, rejected or died last."""

    id: str
    origin: str
    address: str
    state: WorkState
    attempt: int
    published_at: float
    changed_at: float
    reason: str = ""


class RecentMessages(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to the call `queue.recent`, newest first."""

    messages: tuple[RecentMessage, ...]

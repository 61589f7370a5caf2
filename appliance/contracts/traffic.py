"""What the queue says about itself: depths per address, how it fares, and the messages it saw last."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

WorkState = Literal["ready", "leased", "done", "dead", "expired", "purged"]
"""`ready` waits (perhaps for its time), `leased` is in a consumer's hands, the others are ends."""

COMMIT_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the classes in which commits are counted, by how long each took."""


class Depth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One address: messages waiting, in hand and dead right now, and how many ended in each way from the beginning.

    `dead_total` counts deaths, of which a message may have several. `delivered_total` counts from the broker's start.
    """

    address: str
    ready: int = 0
    leased: int = 0
    dead: int = 0
    bytes: int = 0
    done_total: int = 0
    dead_total: int = 0
    expired_total: int = 0
    purged_total: int = 0
    delivered_total: int = 0
    consumers: int = 0

    @property
    def published_total(self) -> int:
        """How many messages were ever stored: each is in one state."""
        return self.ready + self.leased + self.dead + self.done_total + self.expired_total + self.purged_total


class QueueStats(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to the call `queue.stats`: depths, who is connected, whether publishers get *busy*, how the broker fares.

    `broker` is its `lan/cluster`, which is left out of the addresses there, and `routes` are the other clusters for
    which messages are taken in. `clients` are names, and several `sessions` may have one. `remembered` are ended
    messages whose ids still make a repeat a duplicate, and `remembered_s` is how long ago a message may have ended
    for that to be sure; `disk_free` is in bytes. Since the broker's start: rounds of its loop, commits (each one a
    sync of the disk), the seconds they took in all, and how many took at most as long as each of COMMIT_BOUNDS_S
    but longer than the one before.
    """

    at: float
    depths: tuple[Depth, ...]
    broker: str = ""
    routes: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    sessions: int = 0
    bytes: int = 0
    busy: bool = False
    disk_free: int = 0
    remembered: int = 0
    remembered_s: float = 0.0
    turns: int = 0
    commits: int = 0
    commit_s: float = 0.0
    commits_within: tuple[int, ...] = ()


class RecentQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Request of `queue.recent`: the newest `limit` messages whose short name matches `only` and not `without`."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    only: str = "*"
    without: str = ""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message without its body.

    `seq` is its number in this store, and the order in which messages came. Times are Unix seconds, `size` is in bytes,
    `holder` had or has its last lease, `reason` is why it was retried, rejected or died last.
    """

    seq: int
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


class Messages(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to the calls `queue.recent`, newest first, and `queue.browse`, oldest first."""

    messages: tuple[Message, ...]

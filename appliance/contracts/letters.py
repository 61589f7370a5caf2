"""What an operator asks of the queue: to look at messages, send dead ones round again, drop them, tend the store.

A call wants two rights of the asking key: to `call` its name, and to `administer` every address it touches; backup,
check and compact touch all of them (`*`). Each does a bounded piece of work, so whoever wants more asks again.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from appliance.contracts.bridge import RoutesStatus
from appliance.contracts.traffic import Message, Messages, QueueStats, RecentQuery, WorkState

Seq = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Person = Annotated[str, Meta(pattern=r"^[\w.@ -]{0,64}\Z")]
"""Who asks, where the key stands for several people; for the journal."""

EVERY_ADDRESS = ("*", "*/*/*")
"""Patterns of all there are: those of this cluster, and those on their way to others."""

BodyKind = Literal["empty", "json", "msgpack", "text", "binary"]


class Browse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Call `queue.browse`: messages in `state` at addresses that match, by their number, beyond `after`."""

    address: str = "*"
    state: WorkState = "dead"
    after: Seq = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Peek(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Call `queue.peek`: all there is to know of a message, with at most `limit` bytes of its body."""

    seq: Seq
    limit: Annotated[int, Meta(ge=0, le=2**20)] = 2**16
    who: Person = ""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A line of a message's history: when (Unix time), what happened to which attempt, in whose hands, and why."""

    at: float
    attempt: int
    holder: str
    what: str
    reason: str


class Letter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to `queue.peek`. A message that has ended well has no body any more.

    `waits_s` is how long its delay still runs, `not_before` and `expires_at` are Unix time.
    """

    message: Message
    kind: BodyKind
    body: bytes
    history: tuple[Line, ...] = ()
    key: str | None = None
    waits_s: float = 0.0
    not_before: float | None = None
    expires_at: float | None = None


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which messages are meant: those with these numbers, or up to `limit` at addresses that match, beyond `after`."""

    seqs: Annotated[tuple[Seq, ...], Meta(max_length=1000)] = ()
    address: str = ""
    after: Seq = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    who: Person = ""


class Requeue(Choice, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Call `queue.requeue`: dead letters wait again, with all their attempts before them."""


class Purge(Choice, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Call `queue.purge`: messages in `state` are dropped for good; what is in hand is never touched."""

    state: Literal["dead", "ready"] = "dead"


class Changed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to `queue.requeue` and `queue.purge`: how many it were; `more` there may be beyond the number `last`."""

    count: int
    last: int = 0
    more: bool = False


class Tend(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Calls `queue.backup` and `queue.check`."""

    who: Person = ""


class BackedUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to `queue.backup`: a copy of the store, as it was at `at` (Unix time), in a file on the broker's disk."""

    path: str
    size: int
    at: float


class Checked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to `queue.check`: what is wrong with the store, a sentence each; none when all is well."""

    problems: tuple[str, ...]


class Compact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Call `queue.compact`: gives up to `pages` unused pages of the store back to the file system."""

    pages: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    who: Person = ""


class Compacted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to `queue.compact`: how many pages it were; fewer than asked for when no more are unused."""

    pages: int


CALLS: dict[str, tuple[type[msgspec.Struct] | None, type[msgspec.Struct]]] = {
    "queue.stats": (None, QueueStats),
    "queue.recent": (RecentQuery, Messages),
    "queue.browse": (Browse, Messages),
    "queue.peek": (Peek, Letter),
    "queue.requeue": (Requeue, Changed),
    "queue.purge": (Purge, Changed),
    "queue.backup": (Tend, BackedUp),
    "queue.check": (Tend, Checked),
    "queue.compact": (Compact, Compacted),
    "bridge.routes": (None, RoutesStatus),
}
"""Request and reply of every call that the broker, or its bridge, answers to an operator."""

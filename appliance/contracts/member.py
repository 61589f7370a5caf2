"""Members: the servers of a cluster, as they join and as the others see them."""

from typing import Literal

import msgspec


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A server that joined the cluster; `v4`, `v6` are its cluster addresses, `port` takes webhooks (HTTP)."""

    name: str
    component: str
    v4: str
    v6: str
    port: int


class Members(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Event `members`: everyone who ever joined and was not removed, at this revision of the cluster's state."""

    revision: int
    members: tuple[Member, ...]


class Joined(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to the call `arclst.join`."""

    revision: int


class Ping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Call `INSTANCE.ping`: an application-level heartbeat."""

    sent_at: float


class Pong(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to a ping: what the server has in hand right now, and the revision of the flows it runs."""

    name: str
    pending: int
    flows_revision: int


Presence = Literal["up", "down"]

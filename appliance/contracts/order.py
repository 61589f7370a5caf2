"""The order in which the servers of a cluster should be used, as ARHAV found it."""

import msgspec

from appliance.contracts.member import Presence


class Rank(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One server: `cost` is peak-EWMA round-trip seconds times (pending + 1); lower is better."""

    name: str
    presence: Presence
    rtt_s: float
    cost: float
    pending: int


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Event `order`: all members, best first, those that are down last; `at` is Unix time."""

    at: float
    ranks: tuple[Rank, ...]


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Event `health`: whether the built-in journey (in through 443, through a flow, out by HTTP) works.

    `journey_s` is how long the last one took, None when it failed; `detail` then says what failed. `at` is Unix time.
    """

    at: float
    ok: bool
    journey_s: float | None = None
    detail: str = ""

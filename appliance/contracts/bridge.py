"""What the bridge says about the clusters it takes messages to, in answer to the call `bridge.routes`."""

import msgspec


class RouteStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One route: `to` is `lan/cluster`, totals count from the bridge's start, `problem` is what holds it up.

    `lag_s` is the age of the oldest message that waits for it, `next_key` the key that the other side has announced.
    """

    to: str
    endpoint: str
    connected: bool
    sent_total: int = 0
    bytes_total: int = 0
    duplicate_total: int = 0
    refused_total: int = 0
    in_hand: int = 0
    lag_s: float = 0.0
    problem: str = ""
    next_key: str = ""


class RoutesStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reply to the call `bridge.routes`; `public_key` (Z85) is what the other clusters know this one by."""

    place: str
    public_key: str
    routes: tuple[RouteStatus, ...]

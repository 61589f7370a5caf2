"""What the bridge says about the clusters it takes messages to, in answer to the call `bridge.routes`, and what an
operator makes of it together with what the broker holds for them.
"""

import msgspec

from appliance.contracts.traffic import QueueStats


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
    """Reply to the call `bridge.routes`; `public_key` (Z85) is what the other clusters know this one by, and `next_key`
    what they will know it by.
    """

    place: str
    public_key: str
    next_key: str = ""
    routes: tuple[RouteStatus, ...]


class Backlog(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is held here for the cluster `to`: messages `waiting`, those in the bridge's hands too, and dead letters.

    `bytes` are those of all their bodies. `route` is what the bridge says, None while it says nothing.
    """

    to: str
    waiting: int = 0
    dead: int = 0
    bytes: int = 0
    route: RouteStatus | None = None


def backlogs(stats: QueueStats, bridge: RoutesStatus | None) -> tuple[Backlog, ...]:
    """Return the backlog of each cluster to which there is a route."""
    routes = {route.to: route for route in bridge.routes} if bridge else {}
    return tuple(_backlog(to, stats, routes.get(to)) for to in sorted({*stats.routes, *routes}))


def _backlog(to: str, stats: QueueStats, route: RouteStatus | None) -> Backlog:
    depths = [depth for depth in stats.depths if depth.address.startswith(f"{to}/")]
    return Backlog(
        to=to,
        waiting=sum(depth.ready + depth.leased for depth in depths),
        dead=sum(depth.dead for depth in depths),
        bytes=sum(depth.bytes for depth in depths),
        route=route,
    )

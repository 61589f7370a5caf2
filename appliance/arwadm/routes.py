"""The routes to other clusters, as the console asks about them."""

import contextlib

from appliance.contracts.bridge import Backlog, RoutesStatus, backlogs
from appliance.contracts.traffic import QueueStats
from appliance.errors import ApplianceError
from appliance.queue.client import QueueClient

BRIDGE_WITHIN_S = 2.0


async def ask_backlogs(queue: QueueClient, stats: QueueStats) -> tuple[Backlog, ...]:
    """Return what waits for each cluster and, where the bridge answers soon, what it says of the way there."""
    bridge = None
    if stats.routes:
        with contextlib.suppress(ApplianceError):
            bridge = await queue.call("bridge.routes", None, RoutesStatus, deadline_s=BRIDGE_WITHIN_S)
    return backlogs(stats, bridge)

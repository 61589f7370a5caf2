"""What a person may see of the broker's inside."""

from collections.abc import Iterable
from typing import get_args

from appliance.contracts.traffic import Depth, QueueStats, RecentMessage, RecentMessages, RecentQuery, WorkState
from appliance.queue.dispatch import Dispatch
from appliance.queue.ledger import Ledger
from appliance.queue.store import Store

STATE_NAMES: tuple[WorkState, ...] = get_args(WorkState)
"""In the order of store.State."""


def stats(ledger: Ledger, dispatch: Dispatch, clients: Iterable[str], at: float, *, busy: bool) -> QueueStats:
    """Return the account of every address and the names of those connected."""
    depths = tuple(
        Depth(
            address=address,
            ready=c.ready,
            leased=c.leased,
            dead=c.dead,
            bytes=c.bytes,
            done_total=c.done_total,
            dead_total=c.dead_total,
            expired_total=c.expired_total,
            consumers=len(dispatch.consumers_of(address)),
        )
        for address, c in sorted(ledger.counts.items())
    )
    return QueueStats(at=at, depths=depths, clients=tuple(sorted(clients)), bytes=ledger.bytes, busy=busy)


def recent(store: Store, query: RecentQuery) -> RecentMessages:
    """Return the newest messages, without their bodies."""
    messages = tuple(
        RecentMessage(
            id=b.id,
            origin=b.origin,
            address=b.address,
            state=STATE_NAMES[b.state],
            attempt=b.attempt,
            max_attempts=b.max_attempts,
            size=b.size,
            published_at=b.published_at,
            changed_at=b.changed_at,
            holder=b.holder,
            reason=b.reason,
        )
        for b in store.recent(query.limit, query.only, query.without)
    )
    return RecentMessages(messages=messages)

"""What a person may see of the broker's inside."""

from bisect import bisect_left
from typing import get_args

import msgspec

from appliance.contracts.traffic import COMMIT_BOUNDS_S, Depth, Message, WorkState
from appliance.queue.dispatch import Dispatch
from appliance.queue.ledger import Ledger
from appliance.queue.store import Brief

STATE_NAMES: tuple[WorkState, ...] = get_args(WorkState)
"""In the order of store.State."""


class Meter:
    """How often the broker's loop went round, and how often and how long it waited for the disk."""

    def __init__(self) -> None:
        self.turns = 0
        self.commits = 0
        self.commit_s = 0.0
        self._within = [0] * (len(COMMIT_BOUNDS_S) + 1)

    def committed(self, seconds: float) -> None:
        """Count a commit."""
        self.commits += 1
        self.commit_s += seconds
        self._within[bisect_left(COMMIT_BOUNDS_S, seconds)] += 1

    @property
    def commits_within(self) -> tuple[int, ...]:
        """How many commits fell into the class of each bound; the longer ones are left out."""
        return tuple(self._within[:-1])


def depths(ledger: Ledger, dispatch: Dispatch) -> tuple[Depth, ...]:
    """Return the account of every address."""
    return tuple(
        Depth(
            address=address,
            consumers=len(dispatch.consumers_of(address)),
            delivered_total=ledger.delivered[address],
            **msgspec.structs.asdict(counts),
        )
        for address, counts in sorted(ledger.counts.items())
    )


def message_of(brief: Brief) -> Message:
    """Return an item as it is shown outside of the broker."""
    fields = {name: getattr(brief, name) for name in Message.__struct_fields__}
    return Message(**(fields | {"state": STATE_NAMES[brief.state]}))

"""What probing a server says about it: up or down, and what it costs to use it. Pure; times are seconds of one clock.

The cost is the peak-EWMA of the round-trip time times (pending + 1), as Finagle's balancer has it: a slower answer
counts at once, a faster one only as time goes by. A probe without an answer counts as a slow one, never as a fast one.
"""

import math

import msgspec

from appliance.contracts.member import Presence
from appliance.contracts.order import Rank


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When a server changes sides, in seconds where not said otherwise.

    Up after `rise` answers in a row; down after `fall` probes in a row without one, or at the first such probe when the
    last answer is `silence_s` old. `penalty_s` is what a probe without an answer counts as at least, `decay_s` the time
    in which a peak fades to 1/e.
    """

    rise: int = 2
    fall: int = 4
    silence_s: float = 1.5
    penalty_s: float = 1.0
    decay_s: float = 10.0


class Tracker:
    """Follows one server. It is down until it has proved itself."""

    def __init__(self, name: str, rules: Rules) -> None:
        self.name = name
        self.presence: Presence = "down"
        self._rules = rules
        self._rtt_s = 0.0
        self._pending = 0
        self._streak = 0
        self._at: float | None = None
        self._answered_at = -math.inf

    def answered(self, now: float, rtt_s: float, pending: int) -> None:
        """Take in an answer that came at `now` after `rtt_s`."""
        self._observe(now, rtt_s)
        self._pending = pending
        self._answered_at = now
        self._streak = max(self._streak, 0) + 1
        if self._streak >= self._rules.rise:
            self.presence = "up"

    def missed(self, now: float, waited_s: float) -> None:
        """Take in that a probe ended without an answer after `waited_s`."""
        self._observe(now, max(waited_s, self._rules.penalty_s))
        self._streak = min(self._streak, 0) - 1
        if -self._streak >= self._rules.fall or now - self._answered_at >= self._rules.silence_s:
            self.presence = "down"

    def rank(self) -> Rank:
        """Return the server's place, as of the last probe."""
        cost = self._rtt_s * (self._pending + 1)
        return Rank(name=self.name, presence=self.presence, rtt_s=self._rtt_s, cost=cost, pending=self._pending)

    def _observe(self, now: float, rtt_s: float) -> None:
        if self._at is None or rtt_s >= self._rtt_s:
            self._rtt_s = rtt_s
        else:
            weight = math.exp(-max(0.0, now - self._at) / self._rules.decay_s)
            self._rtt_s = self._rtt_s * weight + rtt_s * (1.0 - weight)
        self._at = now


def order_of(trackers: list[Tracker]) -> tuple[Rank, ...]:
    """Return the ranks, those that are up first and the cheapest before the others; equals by name."""
    ranks = [tracker.rank() for tracker in trackers]
    return tuple(sorted(ranks, key=lambda rank: (rank.presence == "down", rank.cost, rank.name)))


class Announcer:
    """Decides when the order is to be published: when somebody came, went, or changed sides, and every `every_s`."""

    def __init__(self, every_s: float = 2.0) -> None:
        self._every_s = every_s
        self._said: frozenset[tuple[str, Presence]] | None = None
        self._at = -math.inf

    def is_due(self, now: float, ranks: tuple[Rank, ...]) -> bool:
        """Return whether to publish now, which is then taken as done."""
        says = frozenset((rank.name, rank.presence) for rank in ranks)
        if says == self._said and now - self._at < self._every_s:
            return False
        self._said, self._at = says, now
        return True

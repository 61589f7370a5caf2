"""The leases that are running, by sequence number and by when they lapse."""

import heapq
from collections.abc import Callable, Iterable

import msgspec

from appliance.queue.sessions import Consumer, Route


class Lease(msgspec.Struct, gc=False):
    """One item in a consumer's hands. Its token is (seq, fence); `until` is broker time."""

    seq: int
    fence: int
    origin: str
    id: str
    address: str
    attempt: int
    max_attempts: int
    holder: str
    size: int
    until: float
    consumer: Consumer | None


class LeaseTable:
    """Extending a lease is the common case, so the heap is put right only when an entry comes up."""

    def __init__(self) -> None:
        self._by_seq: dict[int, Lease] = {}
        self._by_time: list[tuple[float, int]] = []
        self.ended: dict[int, Lease] = {}
        """Those that have ended since the last commit."""

    def __len__(self) -> int:
        return len(self._by_seq)

    def add(self, leases: Iterable[Lease]) -> None:
        """Start these leases."""
        for lease in leases:
            self._by_seq[lease.seq] = lease
            heapq.heappush(self._by_time, (lease.until, lease.seq))

    def find(self, seq: int, fence: int, holder: str) -> Lease | None:
        """Return the lease with this token, if it runs and is held in this name."""
        lease = self._by_seq.get(seq)
        return lease if lease is not None and lease.fence == fence and lease.holder == holder else None

    def end(self, lease: Lease) -> None:
        """Forget a lease and return its credit."""
        self.ended[lease.seq] = self._by_seq.pop(lease.seq)
        if lease.consumer is not None:
            lease.consumer.gave(lease.address, lease.size)

    def known(self, token: tuple[int, int]) -> Lease | None:
        """Return the lease with this token, be it one that has ended since the last commit."""
        for lease in (self._by_seq.get(token[0]), self.ended.get(token[0])):
            if lease is not None and lease.fence == token[1]:
                return lease
        return None

    def lapsed(self, now: float) -> list[Lease]:
        """Return the leases whose time is over; they stay until ended, and are returned once."""
        over: dict[int, Lease] = {}
        while self._by_time and self._by_time[0][0] <= now:
            _, seq = heapq.heappop(self._by_time)
            lease = self._by_seq.get(seq)
            if lease is None:
                continue
            if lease.until > now:
                heapq.heappush(self._by_time, (lease.until, seq))
            else:
                over[seq] = lease
        return list(over.values())

    def next_time(self) -> float | None:
        """Return when to look again; never later than the first lapse."""
        return self._by_time[0][0] if self._by_time else None

    def postpone(self, seconds: float) -> None:
        """Give every lease more time, after a pause in which no heartbeat could be heard."""
        for lease in self._by_seq.values():
            lease.until += seconds

    def refused(self, allows: Callable[[str, str], bool]) -> list[Lease]:
        """Return the leases of which `allows(holder, address)` is not true."""
        pairs = {(lease.holder, lease.address) for lease in self._by_seq.values()}
        lost = {pair for pair in pairs if not allows(*pair)}
        return [lease for lease in self._by_seq.values() if (lease.holder, lease.address) in lost] if lost else []

    def held_by(self, route: Route, user: str) -> list[Lease]:
        """Return the leases that were given or adopted in a session of that peer."""
        held = [(lease, lease.consumer.session) for lease in self._by_seq.values() if lease.consumer is not None]
        return [lease for lease, session in held if session.route == route and session.user == user]

"""The running account of every address, kept in memory and rebuilt from the store at each start."""

from collections import Counter

from appliance.queue.store import Counts, Snapshot, State


class Ledger:
    """How many items each address holds; the next sequence number; how many settled items are remembered."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.counts = snapshot.counts
        self.next_seq = snapshot.next_seq
        ended = sum(each.done_total + each.expired_total + each.purged_total for each in snapshot.counts.values())
        self.settled_rows = ended - snapshot.forgotten
        self.bytes = sum(counts.bytes for counts in snapshot.counts.values())
        self.changed: dict[str, Counts] = {}
        """Accounts that have changed since they were last put on record."""
        self.delivered: Counter[str] = Counter()
        """How often each address was delivered from since the start; not on record."""

    def of(self, address: str) -> Counts:
        """Return the account of an address, opening one where there is none; to read only."""
        counts = self.counts.get(address)
        if counts is None:
            counts = self.counts[address] = Counts()
        return counts

    def _changing(self, address: str) -> Counts:
        counts = self.changed[address] = self.of(address)
        return counts

    def take_seq(self) -> int:
        """Return the next sequence number."""
        seq = self.next_seq
        self.next_seq += 1
        return seq

    def opened(self, address: str) -> Counts:
        """Return the account of an address, to change it with `add`."""
        return self._changing(address)

    def arrived(self, address: str, size: int) -> None:
        """One more item is ready."""
        self.add(self._changing(address), size)

    def add(self, counts: Counts, size: int) -> None:
        """One more item is ready at the address whose account was opened in this turn."""
        counts.ready += 1
        counts.bytes += size
        self.bytes += size

    def turned_away(self, address: str, size: int) -> None:
        """The item that had arrived was a duplicate."""
        counts = self._changing(address)
        counts.ready -= 1
        self._lighter(counts, size)

    def leased(self, address: str, number: int) -> None:
        """Ready items were handed out."""
        counts = self._changing(address)
        counts.ready -= number
        counts.leased += number
        self.delivered[address] += number

    def given_back(self, address: str) -> None:
        """A leased item is ready again."""
        counts = self._changing(address)
        counts.leased -= 1
        counts.ready += 1

    def done(self, address: str, number: int, size: int) -> None:
        """So many leased items, of `size` bytes together, have ended well."""
        counts = self._changing(address)
        counts.leased -= number
        counts.done_total += number
        self.settled_rows += number
        self._lighter(counts, size)

    def died(self, address: str) -> None:
        """A leased item became a dead letter; it keeps its bytes."""
        counts = self._changing(address)
        counts.leased -= 1
        counts.dead += 1
        counts.dead_total += 1

    def expired(self, address: str, size: int) -> None:
        """A ready item's time was over."""
        counts = self._changing(address)
        counts.ready -= 1
        counts.expired_total += 1
        self.settled_rows += 1
        self._lighter(counts, size)

    def requeued(self, address: str) -> None:
        """A dead letter is ready again."""
        counts = self._changing(address)
        counts.dead -= 1
        counts.ready += 1

    def purged(self, address: str, size: int, was: State) -> None:
        """A person dropped an item that was ready or dead."""
        counts = self._changing(address)
        if was is State.DEAD:
            counts.dead -= 1
        else:
            counts.ready -= 1
        counts.purged_total += 1
        self.settled_rows += 1
        self._lighter(counts, size)

    def _lighter(self, counts: Counts, size: int) -> None:
        counts.bytes -= size
        self.bytes -= size

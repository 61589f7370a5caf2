"""What a turn does to the store, as the redo log has it: the store's own methods, and what they were told.

To do it again comes to the same, since what a store does follows from what it holds and is told: it looks at no clock
and draws nothing.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from appliance.errors import NOT_DECODED
from appliance.queue.errors import LogDamaged, StoreFailed
from appliance.queue.store import Counts, Given, NewItem, Record, Store


class Step(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One call: the tag is the method of Store, the fields are its arguments."""

    def do(self, store: Store) -> None:
        """Make the call."""
        getattr(store, str(self.__struct_config__.tag))(*msgspec.structs.astuple(self))


class Put(Step, tag="put"):
    """See Store.put."""

    items: Sequence[NewItem]


class Take(Step, tag="take"):
    """See Store.take; `taken` are the items that it found, so that it is noticed where it finds others."""

    address: str
    holder: str
    limit: int
    max_bytes: int
    wall: float
    taken: list[int]

    def do(self, store: Store) -> None:
        """Make the call; raise LogDamaged where it takes something else."""
        found, _ = store.take(self.address, self.holder, self.limit, self.max_bytes, self.wall)
        if [item.seq for item in found] != self.taken:
            raise LogDamaged("The queue's log does not fit the store: a turn takes other messages than it did.")


class Finish(Step, tag="finish"):
    """See Store.finish."""

    seqs: Sequence[int]
    wall: float


class GiveBack(Step, tag="give_back"):
    """See Store.give_back."""

    given: Sequence[Given]
    wall: float


class Bury(Step, tag="bury"):
    """See Store.bury."""

    seq: int
    fence: int
    wall: float
    reason: str


class WriteHistory(Step, tag="write_history"):
    """See Store.write_history."""

    records: Sequence[Record]


class Wake(Step, tag="wake"):
    """See Store.wake."""

    now: float
    wall: float


class Expire(Step, tag="expire"):
    """See Store.expire."""

    wall: float
    limit: int


class Forget(Step, tag="forget"):
    """See Store.forget."""

    before: float
    limit: int


class Requeue(Step, tag="requeue"):
    """See Store.requeue."""

    seqs: Sequence[int]
    wall: float


class Purge(Step, tag="purge"):
    """See Store.purge."""

    seqs: Sequence[int]
    wall: float


class Progress(Step, tag="progress"):
    """See Store.progress."""

    clock: float | None
    counts: Mapping[str, Counts]


AnyStep = (
    Put | Take | Finish | GiveBack | Bury | WriteHistory | Wake | Expire | Forget | Requeue | Purge | Progress
)  # fmt: skip
encode = msgspec.msgpack.Encoder().encode
_DECODER = msgspec.msgpack.Decoder(list[AnyStep])


def decode(content: bytes) -> Iterable[Step]:
    """Return the steps of a turn. Raises StoreFailed where they are none of this firmware."""
    try:
        return _DECODER.decode(content)
    except (*NOT_DECODED, RecursionError) as error:
        raise StoreFailed(f"The queue's log holds what this firmware cannot read: {error}.") from error

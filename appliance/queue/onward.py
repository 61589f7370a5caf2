"""What a message for another cluster takes along: kept beside it here, in force where it arrives.

Here it only waits for the bridge, which gets everything in the order in which it was stored.
"""

import msgspec

from appliance.queue import wire

MAX_HOPS = 8
"""More clusters than this on a message's way, and no further one takes it."""

UNCOUNTED = 2**31 - 1
"""Attempts that a message has here: those of the bridge are not its consumer's."""


class Waybill(msgspec.Struct, frozen=True, array_like=True):
    """`due` is broker time, `not_before` is Unix time."""

    way: tuple[str, ...]
    due: float | None
    not_before: float | None
    max_attempts: int | None
    key: str | None


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Waybill).decode


def written(item: wire.Item, now: float) -> bytes:
    """Return the waybill of an item that comes in at broker time `now`."""
    due = now + item.delay_s if item.delay_s else None
    return _ENCODE(Waybill(item.way, due, item.not_before, item.max_attempts, item.key))


def handed(waybill: bytes, expires_at: float | None, now: float, wall: float) -> wire.Onward:
    """Return what the bridge passes on: times as seconds from now, since no clock agrees with another's."""
    w = _DECODE(waybill)
    delay_s = max((at - clock for at, clock in ((w.due, now), (w.not_before, wall)) if at is not None), default=0.0)
    expires_s = None if expires_at is None else max(0.0, expires_at - wall)
    return wire.Onward(w.way, max(0.0, delay_s), expires_s, w.max_attempts, w.key)

"""What a client has asked of the broker and not been answered, and how many of it go into one message."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeVar

import msgspec

from appliance.errors import ApplianceError, DeadlinePassed, InvalidInput, Problem, Unavailable
from appliance.queue import wire
from appliance.queue.errors import (
    CALL_DEADLINE,
    BadAddress,
    BodyTooLarge,
    LeaseLost,
    NoRoute,
    NotPermitted,
    QueueBusy,
    RemoteError,
    WireError,
)

MAX_BATCH = 256
MAX_BATCH_BYTES = 512 * 1024

H = TypeVar("H", bound=wire.Header)
Answer = asyncio.Future[bool]
"""True when the item was a duplicate; else an exception or False."""


class PublishAsk:
    """An item to be stored."""

    __slots__ = ("answer", "body", "item")

    def __init__(self, item: wire.Item, body: bytes, answer: Answer) -> None:
        self.item = item
        self.body = body
        self.answer = answer


class SettleAsk:
    """A delivery to be ended."""

    __slots__ = ("answer", "outcome")

    def __init__(self, outcome: wire.Outcome, answer: Answer) -> None:
        self.outcome = outcome
        self.answer = answer


class SingleAsk:
    """Anything else; `make` builds its header for a request number.

    With `anew` the client itself makes it in each session, so it is not asked again in the next.
    """

    __slots__ = ("anew", "answer", "bodies", "make")

    def __init__(
        self, make: Callable[[int], wire.Header], bodies: list[bytes], answer: Answer, *, anew: bool = False
    ) -> None:
        self.make = make
        self.bodies = bodies
        self.answer = answer
        self.anew = anew


class WholeAsk:
    """A message of many items that is answered as a whole; the broker takes it in within one turn."""

    __slots__ = ("answer", "bodies", "make")

    def __init__(
        self,
        make: Callable[[int], wire.Header],
        bodies: Sequence[bytes],
        answer: "asyncio.Future[wire.Results]",
    ) -> None:
        self.make = make
        self.bodies = bodies
        self.answer = answer


Ask = PublishAsk | SettleAsk | SingleAsk | WholeAsk


def checked(part: H) -> H:
    """Return a header, or a part of one; raise InvalidInput where it holds what would end the session."""
    try:
        _decoder(type(part)).decode(msgspec.msgpack.encode(part))
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"The queue cannot be asked for this: {error}.") from error
    return part


@cache
def _decoder(kind: type[H]) -> "msgspec.msgpack.Decoder[H]":
    return msgspec.msgpack.Decoder(kind)


def refuse_large(asks: list[Ask], max_body: int) -> None:
    """Answer those whose bodies the broker does not take, which would cost the session."""
    for ask in asks:
        bodies = [ask.body] if isinstance(ask, PublishAsk) else [] if isinstance(ask, SettleAsk) else ask.bodies
        size = max(map(len, bodies), default=0)
        if size > max_body and not ask.answer.done():
            ask.answer.set_exception(too_large(size, max_body))


def too_large(size: int, max_body: int) -> BodyTooLarge:
    """Return the error for a body that the broker does not take."""
    return BodyTooLarge(
        f"The body has {size} bytes; the broker takes at most {max_body}.", hint="Send less in one message."
    )


class Batch:
    """One message to the broker and the asks that its answer settles."""

    __slots__ = ("asks", "bodies", "header")

    def __init__(self, asks: list[Ask], header: wire.Header, bodies: Sequence[bytes]) -> None:
        self.asks = asks
        self.header = header
        self.bodies = bodies


def batches(asks: list[Ask], numbers: Iterator[int], max_body: int) -> Iterator[tuple[int, Batch]]:
    """Yield (request number, message) for all asks that somebody still waits for.

    The bodies of one message are together no larger than the largest one may be.
    """
    publishes: list[PublishAsk] = []
    settles: list[SettleAsk] = []
    for ask in asks:
        if ask.answer.done():
            continue
        if isinstance(ask, PublishAsk):
            publishes.append(ask)
        elif isinstance(ask, SettleAsk):
            settles.append(ask)
        else:
            number = next(numbers)
            yield number, Batch([ask], ask.make(number), ask.bodies)
    for together in parts([p.body for p in publishes], max_body):
        run = publishes[together]
        number = next(numbers)
        yield number, Batch([*run], wire.Publish(number, tuple(p.item for p in run)), [p.body for p in run])
    for start in range(0, len(settles), MAX_BATCH):
        part = settles[start : start + MAX_BATCH]
        number = next(numbers)
        yield number, Batch([*part], wire.Settle(number, tuple(s.outcome for s in part)), [])


def parts(bodies: Sequence[bytes], max_body: int) -> Iterator[slice]:
    """Yield which of these bodies go into one message."""
    start = size = 0
    for index, body in enumerate(bodies):
        size += len(body)
        if index - start >= MAX_BATCH or (index > start and size > min(max_body, MAX_BATCH_BYTES)):
            yield slice(start, index)
            start, size = index, len(body)
    if start < len(bodies):
        yield slice(start, len(bodies))


def resolve(asks: list[Ask], results: wire.Results) -> Iterator[tuple[float, Ask]]:
    """Give each ask its status; yield those to be asked again, and in how many seconds.

    The end of a delivery is said until the broker has room for it; to publish again is the application's choice.
    """
    troubles = {trouble.index: trouble for trouble in results.troubles}
    for index, (ask, status) in enumerate(zip(asks, results.statuses, strict=False)):
        if ask.answer.done():
            continue
        if isinstance(ask, WholeAsk):
            ask.answer.set_result(results)
            continue
        trouble = troubles.get(index)
        if trouble is None:
            ask.answer.set_result(status == wire.DUPLICATE)
        elif status == wire.BUSY and isinstance(ask, SettleAsk):
            yield trouble.retry_after_s, ask
        else:
            ask.answer.set_exception(refusal(status, trouble))


def refusal(status: int, trouble: wire.Trouble) -> ApplianceError:
    """Return the error for an item that was not taken."""
    if status == wire.BUSY:
        return QueueBusy(trouble.fault.message, trouble.retry_after_s)
    if trouble.fault.code == BodyTooLarge.code:
        return BodyTooLarge(trouble.fault.message)
    return error_of(trouble.fault)


_KNOWN: dict[str, type[ApplianceError]] = {
    kind.code: kind for kind in (NotPermitted, BadAddress, NoRoute, LeaseLost, WireError)
} | {CALL_DEADLINE: DeadlinePassed}


def error_of(fault: wire.Fault) -> ApplianceError:
    """Return the error that a fault stands for: the queue's own kinds as such, others as RemoteError."""
    kind = _KNOWN.get(fault.code)
    if kind is not None:
        return kind(fault.message, hint=fault.hint or None)
    return RemoteError(Problem(code=fault.code, message=fault.message, hint=fault.hint, status=fault.status))


def session_lost() -> Unavailable:
    """Return the error for what cannot be asked again."""
    return Unavailable("The connection to the broker was lost; whether it was carried out is not known.")

"""What a client gets from the queue: deliveries, events, requests."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from appliance.errors import NOT_DECODED, InvalidInput
from appliance.queue import wire

T = TypeVar("T")
Body = bytes | msgspec.Struct
"""Bytes go as they are; a Struct goes as MessagePack (`msgspec.msgpack`)."""


NO_ONWARD = wire.Onward()


def encode_body(body: Body) -> bytes:
    """Return the bytes that travel."""
    return body if isinstance(body, bytes) else msgspec.msgpack.encode(body)


def decode_body(body: bytes, kind: type[T]) -> T:
    """Return the MessagePack body as `kind`; raise InvalidInput where it does not fit."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (*NOT_DECODED, RecursionError) as error:
        raise InvalidInput(f"The body is not a {getattr(kind, '__name__', kind)}: {error}.") from error


class Settler(Protocol):
    """Who carries the outcome of a delivery to the broker."""

    async def settle(self, delivery: "Delivery", outcome: wire.Outcome, deadline_s: float) -> None:
        """Return once the broker has it on disk; raise LeaseLost or SettleUnknown."""

    def dropped(self, token: wire.Token) -> None:
        """Hear that nobody has a delivery any more that may not have been settled; may come from any thread."""


class Delivery:
    """One work item under lease. It stays ours, however long it takes, until it is settled or the client is gone.

    One that is let go of unsettled (its task was cancelled, say) is given back by itself, as a failed attempt.
    """

    __slots__ = ("_settler", "address", "attempt", "body", "id", "onward", "origin", "published_at", "token")

    def __init__(self, handed: wire.Handed, body: bytes, settler: Settler) -> None:
        self._settler = settler
        self.token = handed.token
        self.id = handed.id
        self.origin = handed.origin
        self.address = handed.address
        self.attempt = handed.attempt
        self.published_at = handed.published_at
        self.onward = handed.onward or NO_ONWARD
        self.body = body

    def __del__(self) -> None:
        self._settler.dropped(self.token)

    def __repr__(self) -> str:
        return f"Delivery(id={self.id!r}, address={self.address!r}, attempt={self.attempt})"

    def decode(self, kind: type[T]) -> T:
        """Return the MessagePack body as `kind`; raise InvalidInput where it does not fit."""
        return decode_body(self.body, kind)

    async def done(self, *, deadline_s: float = 10.0) -> None:
        """End the message. Raises LeaseLost when it went to somebody else, SettleUnknown without an answer."""
        await self._settler.settle(self, wire.Outcome(self.token, wire.DONE), deadline_s)

    async def retry(self, delay_s: float | None, reason: str, *, deadline_s: float = 10.0) -> None:
        """Give it back, to be delivered again after `delay_s`; the last attempt makes it a dead letter instead.

        None leaves the delay to the broker: exponential backoff with jitter.
        """
        await self._settler.settle(self, wire.Outcome(self.token, wire.RETRY, delay_s, reason[:2000]), deadline_s)

    async def release(self, delay_s: float, reason: str, *, deadline_s: float = 10.0) -> None:
        """Give it back, to be delivered again after `delay_s`; the attempt does not count."""
        await self._settler.settle(self, wire.Outcome(self.token, wire.RELEASE, delay_s, reason[:2000]), deadline_s)

    async def reject(self, reason: str, *, deadline_s: float = 10.0) -> None:
        """Make it a dead letter now; a `notice.mail` goes out with it."""
        await self._settler.settle(self, wire.Outcome(self.token, wire.REJECT, None, reason[:2000]), deadline_s)


class Event(msgspec.Struct, frozen=True):
    """A value of a topic: who emitted it, when (Unix time), and whether it is one kept from before the subscription."""

    topic: str
    origin: str
    body: bytes
    at: float
    retained: bool

    def decode(self, kind: type[T]) -> T:
        """Return the MessagePack body as `kind`; raise InvalidInput where it does not fit."""
        return decode_body(self.body, kind)


class Request(msgspec.Struct, frozen=True):
    """A call as the server sees it; `caller` is the name of the caller's key, which the broker vouches for."""

    name: str
    body: bytes
    caller: str
    deadline_s: float

    def decode(self, kind: type[T]) -> T:
        """Return the MessagePack body as `kind`; raise InvalidInput where it does not fit."""
        return decode_body(self.body, kind)


Handler = Callable[[Request], Awaitable[object]]
"""Returns anything msgspec can encode. An ApplianceError travels to the caller, others become `internal-error`."""

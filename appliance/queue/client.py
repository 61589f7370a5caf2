"""The asyncio client of the queue: what every component uses to publish, consume, emit, subscribe, call and serve."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Self, TypeVar

import msgspec

from appliance.contracts.service import CURVE_CREDENTIAL, ServiceContext, credential
from appliance.queue.errors import LeaseLost, NotPermitted, PublishUnknown, QueueBusy, RemoteError, SettleUnknown
from appliance.queue.keys import Keys, generate_keys

__all__ = [
    "Connection", "Delivery", "Event", "Keys", "LeaseLost", "NotPermitted", "PublishUnknown", "Published", "QueueBusy",
    "QueueClient", "RemoteError", "Request", "SettleUnknown", "connect", "connection_of", "generate_keys",
]

T = TypeVar("T")
Body = bytes | msgspec.Struct
"""Bytes go as they are; a Struct goes as MessagePack (`msgspec.msgpack`)."""


class Connection(msgspec.Struct, frozen=True):
    """Where the broker is, its public key, who we are, and the cluster whose names may be written short."""

    endpoint: str
    server_key: str
    keys: Keys
    lan: str
    cluster: str


class Published(msgspec.Struct, frozen=True):
    """The message is on the broker's disk; `duplicate` when it already was (same origin and id)."""

    id: str
    duplicate: bool


class Delivery:
    """One work item under lease. It stays ours, however long it takes, until it is settled or the client is gone."""

    id: str
    origin: str
    address: str
    body: bytes
    attempt: int
    published_at: float

    def decode(self, kind: type[T]) -> T:
        """Return the MessagePack body as `kind`; raise InvalidInput where it does not fit."""
        raise NotImplementedError

    async def done(self, *, deadline_s: float = 10.0) -> None:
        """End the message. Raises LeaseLost when it went to somebody else, SettleUnknown without an answer."""
        raise NotImplementedError

    async def retry(self, delay_s: float, reason: str, *, deadline_s: float = 10.0) -> None:
        """Give it back, to be delivered again after `delay_s`; the last attempt makes it a dead letter instead."""
        raise NotImplementedError

    async def reject(self, reason: str, *, deadline_s: float = 10.0) -> None:
        """Make it a dead letter now; a `notice.mail` goes out with it."""
        raise NotImplementedError


class Event(msgspec.Struct, frozen=True):
    """A value of a topic: who emitted it, when (Unix time), and whether it is one kept from before the subscription."""

    topic: str
    origin: str
    body: bytes
    at: float
    retained: bool

    def decode(self, kind: type[T]) -> T:
        """Return the MessagePack body as `kind`; raise InvalidInput where it does not fit."""
        raise NotImplementedError


class Request(msgspec.Struct, frozen=True):
    """A call as the server sees it; `caller` is the name of the caller's key, which the broker vouches for."""

    name: str
    body: bytes
    caller: str
    deadline_s: float

    def decode(self, kind: type[T]) -> T:
        """Return the MessagePack body as `kind`; raise InvalidInput where it does not fit."""
        raise NotImplementedError


Handler = Callable[[Request], Awaitable[object]]
"""Returns anything msgspec can encode. An ApplianceError raised in it travels to the caller, other errors as `internal-error`."""


class QueueClient:
    """A connection to the broker that mends itself: reconnects for ever, with exponential backoff and jitter.

    Entering returns at once; each operation waits for the connection within its own deadline. Every coroutine here may be
    cancelled: a cancelled publish or settle is *unknown*, nothing else is harmed. Leaving gives open deliveries back.
    """

    def __init__(self, connection: Connection) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *exc: object) -> None:
        raise NotImplementedError

    @property
    def connected(self) -> bool:
        """Whether the broker has welcomed us and is heard."""
        raise NotImplementedError

    async def wait_connected(self, deadline_s: float) -> None:
        """Return once connected; raise DeadlinePassed at the deadline."""
        raise NotImplementedError

    async def publish(
        self, address: str, body: Body, *, id: str | None = None, deadline_s: float = 5.0, delay_s: float = 0.0,
        expires_s: float | None = None, max_attempts: int | None = None, key: str | None = None,
    ) -> Published:
        """Return once the message is on the broker's disk.

        `id` is the publisher's own (made up when None); the same id from the same origin is *duplicate*, not a second message.
        Messages of one `key` at one address are delivered one at a time, in order. Raises QueueBusy (nothing stored), NotPermitted,
        BadAddress, NoRoute, and PublishUnknown at the deadline; it is resent under the same id across reconnects until then.
        """
        raise NotImplementedError

    async def publish_many(
        self, address: str, items: Sequence[tuple[str, Body]], *, deadline_s: float = 5.0
    ) -> list[Published]:
        """Publish (id, body) pairs in one go; the first refusal is raised, PublishUnknown names the ids without an answer."""
        raise NotImplementedError

    def consume(self, pattern: str, credit: int = 16) -> AsyncIterator[Delivery]:
        """Iterate over work at the addresses that match; at most `credit` deliveries are in hand at a time.

        Settle each one (done, retry, reject or move). Raises NotPermitted. Subscribes again after a reconnect.
        """
        raise NotImplementedError

    async def move(
        self, delivery: Delivery, address: str, body: Body, *, id: str | None = None, delay_s: float = 0.0,
        deadline_s: float = 10.0,
    ) -> Published:
        """Publish the next stage and end `delivery`, in one transaction at the broker: both or neither.

        The new message keeps the origin of the old. Raises LeaseLost, QueueBusy, NotPermitted, SettleUnknown.
        """
        raise NotImplementedError

    async def emit(self, topic: str, body: Body, *, deadline_s: float = 5.0) -> None:
        """Return once the broker has taken the event; it keeps the last value for late subscribers (not on disk).

        The client emits its last values again when the broker was restarted. Raises NotPermitted, Unavailable at the deadline.
        """
        raise NotImplementedError

    def events(self, pattern: str) -> AsyncIterator[Event]:
        """Iterate over events of the topics that match, first the values the broker kept. Subscribes again after a reconnect.

        Who falls behind gets the newest value of each topic, not every value. Raises NotPermitted.
        """
        raise NotImplementedError

    async def call(self, name: str, request: object, reply_type: type[T], *, deadline_s: float = 5.0) -> T:
        """Return the answer of whoever serves `name`, decoded. `request` is anything msgspec can encode; None is an empty body.

        Raises RemoteError with the server's code, sentence and hint (`call-not-served`: nobody serves it; `call-server-lost`), NotPermitted,
        DeadlinePassed. A call is never repeated by itself.
        """
        raise NotImplementedError

    async def serve(self, name: str, handler: Handler, *, deadline_s: float = 30.0) -> None:
        """Register `handler` for calls to `name` and return once the broker knows; it runs until the client is left.

        Each request runs as a task of its own, cancelled when its deadline has passed. Raises NotPermitted, DeadlinePassed.
        """
        raise NotImplementedError


def connection_of(context: ServiceContext) -> Connection:
    """Return the connection of a component process, its secret read from the systemd credential."""
    keys = Keys(public=context.public_key, secret=credential(CURVE_CREDENTIAL))
    return Connection(context.queue_endpoint, context.queue_key, keys, context.lan, context.cluster)


def connect(context: ServiceContext) -> QueueClient:
    """Return a client for a component process: `async with connect(load()) as q`."""
    return QueueClient(connection_of(context))

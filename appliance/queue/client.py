"""The asyncio client of the queue: what every component uses to publish, consume, emit, subscribe, call and serve."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from appliance.contracts.service import ServiceContext
from appliance.errors import ApplianceError, DeadlinePassed
from appliance.queue import wire
from appliance.queue.address import Home
from appliance.queue.asks import (
    MAX_BATCH_BYTES,
    Answer,
    PublishAsk,
    SettleAsk,
    SingleAsk,
    WholeAsk,
    checked,
    parts,
    refusal,
    too_large,
)
from appliance.queue.connection import Connection, connection_of
from appliance.queue.delivery import Body, Delivery, Event, Handler, Request, decode_body, encode_body
from appliance.queue.errors import (
    NOT_SERVED,
    LeaseLost,
    NotPermitted,
    PublishUnknown,
    QueueBusy,
    RemoteError,
    SettleUnknown,
)
from appliance.queue.feeds import EventFeed, WorkFeed
from appliance.queue.keys import Keys, generate_keys
from appliance.queue.link import Link

__all__ = [
    "Body", "Connection", "Delivery", "Event", "Handler", "Keys", "LeaseLost", "NotPermitted", "PublishUnknown",
    "Published", "QueueBusy", "QueueClient", "RemoteError", "Request", "SettleUnknown", "connect", "connection_of",
    "generate_keys", ]  # fmt: skip

log = logging.getLogger(__name__)

T = TypeVar("T")


class Published(msgspec.Struct, frozen=True):
    """The message is on the broker's disk; `duplicate` when it already was (same origin and id)."""

    id: str
    duplicate: bool


def new_id() -> str:
    """Return an id that nobody else makes up; ids of one time sort together, which keeps the broker's index compact."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def _settle(outcomes: tuple[wire.Outcome, ...], request: int) -> wire.Settle:
    return wire.Settle(request, outcomes)


class QueueClient:
    """A connection to the broker that mends itself: reconnects for ever, with exponential backoff and jitter.

    Entering returns at once; each operation waits for the connection within its own deadline. Every coroutine here may
    be cancelled: a cancelled publish or settle is *unknown*, nothing else is harmed. Leaving gives open deliveries
    back; leaving by an error gives back untouched those that the application had not seen, and the others as a failed
    attempt.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._handlers: dict[str, Handler] = {}
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._link = Link(self._connection, self, self._on_asked)
        self._start(self._group.create_task(self._link.run(), name="queue-link"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.release_all(seen=kind is None or issubclass(kind, asyncio.CancelledError))
        self._link.say_bye()
        for task in self._tasks:
            task.cancel()
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        try:
            await self._group.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))
        finally:
            await self._link.close()

    def _start(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def connected(self) -> bool:
        """Whether the broker has welcomed us and is heard."""
        return self._link.welcome is not None

    @property
    def server_keys(self) -> tuple[str, ...]:
        """The broker's public key and, once it is known, the one that comes next."""
        return self._link.server_keys

    @property
    def max_body(self) -> int | None:
        """The largest body that the broker takes, None while it is not known."""
        return None if self._link.welcome is None else self._link.welcome.max_body

    async def wait_connected(self, deadline_s: float) -> None:
        """Return once connected; raise DeadlinePassed at the deadline."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._link.connected.wait()
        except TimeoutError:
            raise DeadlinePassed(f"The broker was not reached within {deadline_s:g} s.") from None

    async def publish(
        self,
        address: str,
        body: Body,
        *,
        id: str | None = None,  # noqa: A002  # the field's own word, and only ever a keyword
        deadline_s: float = 5.0,
        delay_s: float = 0.0,
        not_before: float | None = None,
        expires_s: float | None = None,
        max_attempts: int | None = None,
        key: str | None = None,
    ) -> Published:
        """Return once the message is on the broker's disk.

        `id` is the publisher's own (made up when None); the same id from the same origin is *duplicate*, not a second
        message. `not_before` is Unix time. Messages of one `key` at one address are delivered one at a time, in order.
        Raises QueueBusy (nothing stored), NotPermitted, BadAddress, BodyTooLarge, NoRoute, and PublishUnknown at the
        deadline; it is resent under the same id across reconnects until then.
        """
        item = wire.Item(address, id or new_id(), delay_s, not_before, expires_s, max_attempts, key)
        ask = self._publish(item, body)
        try:
            async with asyncio.timeout(deadline_s):
                return Published(item.id, await ask.answer)
        except TimeoutError:
            raise self._unknown([item.id], deadline_s) from None

    async def publish_many(
        self, address: str, items: Sequence[tuple[str, Body]], *, deadline_s: float = 5.0
    ) -> list[Published]:
        """Publish (id, body) pairs in one go: all are tried, then the first refusal is raised.

        PublishUnknown names the ids without an answer.
        """
        bodies = [self._fitting(body) for _, body in items]
        names = [name for name, _ in items]
        sent = parts(bodies, MAX_BATCH_BYTES if self.max_body is None else self.max_body)
        asks = [(names[part], self._publish_part(address, names[part], bodies[part])) for part in sent]
        try:
            if asks:
                await asyncio.wait([answer for _, answer in asks], timeout=deadline_s)
        finally:
            for _, answer in asks:
                answer.cancel()
        errors = [answer.exception() for _, answer in asks if not answer.cancelled()]
        for error in errors:
            if error is not None:
                raise error
        answered = [(part, answer.result()) for part, answer in asks if not answer.cancelled()]
        for _, results in answered:
            for trouble in results.troubles:
                raise refusal(results.statuses[trouble.index], trouble)
        if len(answered) < len(asks):
            raise self._unknown([name for part, answer in asks if answer.cancelled() for name in part], deadline_s)
        return [
            Published(name, status == wire.DUPLICATE)
            for part, results in answered
            for name, status in zip(part, results.statuses, strict=True)
        ]

    def _publish_part(
        self, address: str, names: Sequence[str], bodies: Sequence[bytes]
    ) -> "asyncio.Future[wire.Results]":
        items = checked(wire.Publish(0, tuple([wire.Item(address, name) for name in names]))).items
        ask = WholeAsk(lambda r: wire.Publish(r, items), bodies, asyncio.get_running_loop().create_future())
        self._link.ask(ask)
        return ask.answer

    def _publish(self, item: wire.Item, body: Body) -> PublishAsk:
        ask = PublishAsk(checked(item), self._fitting(body), asyncio.get_running_loop().create_future())
        self._link.ask(ask)
        return ask

    def _fitting(self, body: Body) -> bytes:
        data = encode_body(body)
        if self._link.welcome is not None and len(data) > self._link.welcome.max_body:
            raise too_large(len(data), self._link.welcome.max_body)
        return data

    def _unknown(self, ids: Sequence[str], deadline_s: float) -> PublishUnknown:
        reached = "no acknowledgement came" if self.connected else "the broker was not reached"
        return PublishUnknown(f"Of {len(ids)} message(s) {reached} within {deadline_s:g} s.", tuple(ids))

    async def publish_whole(
        self, items: Sequence[wire.Item], bodies: Sequence[bytes], *, deadline_s: float
    ) -> wire.Results:
        """Return what became of each of at most MAX_ITEMS items, which are taken in in this order and in one turn.

        Raises PublishUnknown at the deadline; until then they are sent again across reconnects.
        """
        try:
            async with asyncio.timeout(deadline_s):
                return await self._whole(lambda r: wire.Publish(r, tuple(items)), bodies)
        except TimeoutError:
            raise self._unknown([item.id for item in items], deadline_s) from None

    async def settle_whole(self, outcomes: Sequence[wire.Outcome], *, deadline_s: float) -> None:
        """Return once at most MAX_ITEMS deliveries have ended so, or are lost to others. Raises SettleUnknown."""
        left = outcomes
        try:
            async with asyncio.timeout(deadline_s):
                while left:
                    asked = tuple(left)
                    results = await self._whole(partial(_settle, asked), ())
                    busy = [each for each in results.troubles if results.statuses[each.index] == wire.BUSY]
                    await asyncio.sleep(max((each.retry_after_s for each in busy), default=0.0))
                    left = [asked[each.index] for each in busy]
        except TimeoutError:
            raise SettleUnknown(f"{len(left)} ends were not acknowledged within {deadline_s:g} s.") from None
        finally:
            for outcome in outcomes:
                self._link.settled(outcome.token)

    async def _whole(self, make: Callable[[int], wire.Header], bodies: Sequence[bytes]) -> wire.Results:
        ask = WholeAsk(make, bodies, asyncio.get_running_loop().create_future())
        self._link.ask(ask)
        return await ask.answer

    async def consume(self, pattern: str, credit: int = 16) -> AsyncGenerator[Delivery, None]:
        """Iterate over work at the addresses that match; at most `credit` deliveries are in hand at a time.

        Settle each one (done, retry, reject or move). Raises NotPermitted. Subscribes again after a reconnect.
        """
        checked(wire.Consume(0, 0, pattern, credit))
        feed = WorkFeed(pattern, credit)
        number = self._link.subscribe(feed)
        try:
            while True:
                yield await feed.get()
        finally:
            self._link.unsubscribe(number)

    async def settle(self, delivery: Delivery, outcome: wire.Outcome, deadline_s: float) -> None:
        """See Delivery, whose methods use this."""
        ask = SettleAsk(checked(outcome), asyncio.get_running_loop().create_future())
        self._link.ask(ask)
        await self._settled(delivery, ask.answer, deadline_s)

    async def _settled(self, delivery: Delivery, answer: Answer, deadline_s: float) -> bool:
        """Return whether what was published with it was a duplicate. The lease is renewed until the answer is there."""
        try:
            async with asyncio.timeout(deadline_s):
                duplicate = await answer
        except TimeoutError:
            self._link.settled(delivery.token)
            raise SettleUnknown(f"The end of {delivery.id} was not acknowledged within {deadline_s:g} s.") from None
        except LeaseLost:
            self._link.settled(delivery.token)
            raise
        self._link.settled(delivery.token)
        return duplicate

    def dropped(self, token: wire.Token) -> None:
        """See Delivery."""
        self._link.dropped(token)

    async def move(
        self,
        delivery: Delivery,
        address: str,
        body: Body,
        *,
        id: str | None = None,  # noqa: A002  # as in publish
        delay_s: float = 0.0,
        expires_s: float | None = None,
        max_attempts: int | None = None,
        key: str | None = None,
        deadline_s: float = 10.0,
    ) -> Published:
        """Publish the next stage and end `delivery`, in one transaction at the broker: both or neither.

        The new message keeps the origin of the old. Raises LeaseLost, QueueBusy, NotPermitted, BodyTooLarge,
        SettleUnknown.
        """
        item = checked(wire.Item(address, id or new_id(), delay_s, None, expires_s, max_attempts, key))
        answer: Answer = asyncio.get_running_loop().create_future()
        self._link.ask(SingleAsk(lambda r: wire.Move(r, delivery.token, item), [self._fitting(body)], answer))
        return Published(item.id, await self._settled(delivery, answer, deadline_s))

    async def emit(self, topic: str, body: Body, *, deadline_s: float = 5.0) -> None:
        """Return once the broker has taken the event; it keeps the last value for late subscribers (not on disk).

        The client emits its last values again when the broker was restarted. Raises NotPermitted, Unavailable at the
        deadline.
        """
        data = self._fitting(body)
        checked(wire.Emit(0, topic))
        await self._asked(SingleAsk(lambda r: wire.Emit(r, topic), [data], self._future()), f"emit {topic}", deadline_s)
        self._link.emitted(topic, data, time.time())

    def _future(self) -> Answer:
        return asyncio.get_running_loop().create_future()

    async def _asked(self, ask: SingleAsk, what: str, deadline_s: float) -> None:
        self._link.ask(ask)
        try:
            async with asyncio.timeout(deadline_s):
                await ask.answer
        except TimeoutError:
            raise DeadlinePassed(f"The broker did not answer within {deadline_s:g} s ({what}).") from None

    async def events(self, pattern: str) -> AsyncGenerator[Event, None]:
        """Iterate over events of the topics that match, first the values the broker kept.

        Subscribes again after a reconnect. Who falls behind gets the newest value of each topic, not every value.
        Raises NotPermitted.
        """
        checked(wire.Subscribe(0, 0, pattern))
        feed = EventFeed(pattern)
        number = self._link.subscribe(feed)
        try:
            while True:
                yield await feed.get()
        finally:
            self._link.unsubscribe(number)

    async def call(self, name: str, request: object, reply_type: type[T], *, deadline_s: float = 5.0) -> T:
        """Return the answer of whoever serves `name`, decoded. `request` is anything msgspec can encode; None is an
        empty body.

        Raises RemoteError with the server's code, sentence and hint (`call-not-served`: nobody serves it; `call-
        server-lost`), NotPermitted, DeadlinePassed. A call is never repeated by itself.
        """
        body = b"" if request is None else request if isinstance(request, bytes) else msgspec.msgpack.encode(request)
        until = time.monotonic() + deadline_s
        checked(wire.Call(0, name, deadline_s))
        try:
            async with asyncio.timeout(deadline_s):
                await self._link.connected.wait()
                answer = await self._link.call(name, self._fitting(body), max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise DeadlinePassed(f"The call {name} was not answered within {deadline_s:g} s.") from None
        return decode_body(answer, reply_type)

    async def serve(self, name: str, handler: Handler, *, deadline_s: float = 30.0) -> None:
        """Register `handler` for calls to `name` and return once the broker knows; it runs until the client is left.

        Each request runs as a task of its own, cancelled when its deadline has passed. Raises NotPermitted,
        DeadlinePassed.
        """
        name = Home(self._connection.lan, self._connection.cluster).short(name)
        before = self._handlers.get(name)
        self._handlers[name] = handler
        try:
            await self._asked(SingleAsk(lambda r: wire.Serve(r, name), [], self._future()), f"serve {name}", deadline_s)
        except BaseException:
            if before is None:
                del self._handlers[name]
            else:
                self._handlers[name] = before
            raise
        self._link.serve(name)

    def _on_asked(self, asked: wire.Asked, body: bytes) -> None:
        self._start(self._group.create_task(self._answer(asked, body), name=f"queue-call-{asked.name}"))

    async def _answer(self, asked: wire.Asked, body: bytes) -> None:
        fault: wire.Fault | None = None
        reply = b""
        handler = self._handlers.get(asked.name)
        if handler is None:  # `serve` was cancelled after the broker had heard of it
            self._link.answer(wire.Answer(asked.call, wire.Fault(NOT_SERVED, f"Nobody serves {asked.name}.")), b"")
            return
        try:
            async with asyncio.timeout(asked.deadline_s) as limit:
                result = await handler(Request(asked.name, body, asked.caller, asked.deadline_s))
            reply = self._fitting(msgspec.msgpack.encode(result))
        except ApplianceError as error:
            fault = wire.fault_of(error)
        except Exception:
            if limit.expired():
                log.warning("the call %s from %s took longer than its deadline", asked.name, asked.caller)
                return
            log.exception("the call %s from %s failed", asked.name, asked.caller)
            fault = wire.Fault(
                "internal-error", f"{asked.name} failed unexpectedly.", "The journal of its server says why."
            )
        self._link.answer(wire.Answer(asked.call, fault), reply)


def connect(context: ServiceContext) -> QueueClient:
    """Return a client for a component process: `async with connect(load()) as q`."""
    return QueueClient(connection_of(context))

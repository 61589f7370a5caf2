"""A client's session with the broker: opened, kept alive, and opened again for ever."""

import asyncio
import itertools
import logging
import os
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import zmq

from appliance.queue import wire
from appliance.queue.asks import (
    Answer,
    Ask,
    Batch,
    SettleAsk,
    SingleAsk,
    batches,
    error_of,
    refuse_large,
    resolve,
    session_lost,
)
from appliance.queue.connection import Connection
from appliance.queue.delivery import Delivery, Event, Settler
from appliance.queue.errors import WireError
from appliance.queue.feeds import EventFeed, WorkFeed
from appliance.queue.pipe import Pipe

log = logging.getLogger(__name__)

WELCOME_WITHIN_S = 3.0
BACKOFF_S = (0.05, 2.0)
STEADY_S = 2.0
"""A session that lasted this long was no failure."""
LINGER_S = 0.5
MAX_STALE = 1024
MAX_HELD = 65536
"""Leases that one Heartbeat may name."""


class Link:
    """Everything a client keeps across sessions: subscriptions, leases in hand, last events, what was asked."""

    def __init__(
        self, connection: Connection, settler: Settler, on_asked: Callable[[wire.Asked, bytes], None]
    ) -> None:
        self._connection = connection
        self._settler = settler
        self._on_asked = on_asked
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pipes: list[Pipe] = []
        self._pipe: Pipe | None = None
        self._numbers = itertools.count(1)
        self._box: list[Ask] = []
        self._flushing = False
        self._sent: dict[int, Batch] = {}
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._feeds: dict[int, WorkFeed | EventFeed] = {}
        self._held: dict[wire.Token, int] = {}
        self._dropped: deque[wire.Token] = deque()
        self._emitted: dict[str, tuple[bytes, float]] = {}
        self._served: set[str] = set()
        self._epoch = ""
        self._heard = 0.0
        self._lost = asyncio.Event()
        self.server_keys: tuple[str, ...] = (connection.server_key, *filter(None, [connection.next_key]))
        """The public keys the broker may have now: the last known, and the one announced to come."""
        self.welcome: wire.Welcome | None = None
        self.connected = asyncio.Event()

    # -- the session

    async def run(self) -> None:
        """Keep a session open until cancelled.

        Each session has a socket of its own, so nothing of an old one gets into it; one more tries the broker's next
        key, and the one that is welcomed stays.
        """
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            self._pipes = [
                Pipe(self._context, self._connection, key, self._on_message, self._on_lost) for key in self.server_keys
            ]
            began = loop.time()
            try:
                if await self._hello():
                    await self._keep_alive()
            finally:
                self._forget_session()
                self._close_pipes()
            failures = 0 if loop.time() - began > STEADY_S else failures + 1
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(BACKOFF_S[1], BACKOFF_S[0] * 2 ** min(failures, 10)))

    async def _hello(self) -> bool:
        """Return whether the broker has welcomed us."""
        self._lost.clear()
        for pipe in self._pipes:
            pipe.send(wire.to_broker(wire.Hello(f"alpha-ren/{os.getpid()}")))
        try:
            async with asyncio.timeout(WELCOME_WITHIN_S):
                await self.connected.wait()
        except TimeoutError:
            return False
        return True

    async def _keep_alive(self) -> None:
        """Return when the session is over: the broker says so, or has gone silent."""
        assert self._pipe is not None
        loop = asyncio.get_running_loop()
        while (welcome := self.welcome) is not None:
            every = welcome.heartbeat_s
            before = loop.time()
            try:
                async with asyncio.timeout(every):
                    await self._lost.wait()
            except TimeoutError:
                if self._lost.is_set():
                    continue  # it was lost at the very time of a heartbeat
                if loop.time() - before > 2 * every:
                    self._heard = loop.time()  # it was we who stood still
                if loop.time() - self._heard > max(welcome.lease_s, 3 * every):
                    log.warning("the broker has gone silent")
                    return
                self._beat()

    def _beat(self) -> None:
        """Say that we live, and what we still work on; give back what the application has let go of unsettled."""
        while self._dropped:
            token = self._dropped.popleft()
            if self._held.pop(token, None) is not None:
                self.ask(SettleAsk(wire.Outcome(token, wire.RETRY, 0.0, "the consumer let it drop"), self._quiet()))
        held = tuple(self._held)
        for start in range(0, len(held) or 1, MAX_HELD):
            self._send(wire.Heartbeat(held[start : start + MAX_HELD]))

    def _send(self, header: wire.Header, bodies: wire.Frames | None = None) -> None:
        """Send in this session; do nothing when there is none."""
        if self._pipe is not None and self.welcome is not None:
            self._pipe.send(wire.to_broker(header, bodies or ()))

    def _close_pipes(self, linger_s: float = 0.0, *, but: Pipe | None = None) -> None:
        for pipe in self._pipes:
            if pipe is not but:
                pipe.close(linger_s)
        self._pipes = [] if but is None else [but]
        self._pipe = but

    def _forget_session(self) -> None:
        """Put back what must be asked again; calls are not."""
        self.welcome = None
        self.connected.clear()
        self._lost.set()
        again: list[Ask] = [ask for batch in self._sent.values() for ask in batch.asks]
        self._sent.clear()
        self._box = [ask for ask in again + self._box if not (isinstance(ask, SingleAsk) and ask.anew)]
        for call in self._calls.values():
            if not call.done():
                call.set_exception(session_lost())
        self._calls.clear()

    def _welcomed(self, welcome: wire.Welcome) -> None:
        restarted = self._epoch not in ("", welcome.epoch)
        self._epoch = welcome.epoch
        self.welcome = welcome
        renewed: list[Ask] = [self._subscription(number, feed) for number, feed in self._feeds.items()]
        renewed += [self._offer(name) for name in self._served]
        if restarted:
            renewed += [self._restored(topic, body, at) for topic, (body, at) in self._emitted.items()]
        refuse_large(self._box, welcome.max_body)
        self._box = renewed + self._box
        self.connected.set()
        self._flush()

    def _offer(self, name: str) -> SingleAsk:
        return SingleAsk(lambda r: wire.Serve(r, name), [], self._quiet(), anew=True)

    def _restored(self, topic: str, body: bytes, at: float) -> SingleAsk:
        return SingleAsk(lambda r: wire.Emit(r, topic, True, at), [body], self._quiet(), anew=True)

    def say_bye(self) -> None:
        """Send what waits and end the session; `run` is to be cancelled next."""
        if self._pipe is not None and self.welcome is not None:
            self._flush()
            self._pipe.send(wire.to_broker(wire.Bye()))
        self._close_pipes(LINGER_S)
        self._forget_session()
        for feed in self._feeds.values():
            feed.fail(session_lost())

    async def close(self) -> None:
        """Wait until what was sent has left, after `run` has ended."""
        await asyncio.to_thread(self._context.term)

    # -- asking

    def ask(self, ask: Ask) -> None:
        """Send it with the others of this turn of the event loop; again in the next session, if not answered."""
        self._box.append(ask)
        if self.welcome is None and len(self._box) % MAX_STALE == 0:
            self._box = [waiting for waiting in self._box if not waiting.answer.done()]
        if not self._flushing and self.welcome is not None:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.welcome is None or self._pipe is None:
            return
        asks, self._box = self._box, []
        for number, batch in batches(asks, self._numbers, self.welcome.max_body):
            self._sent[number] = batch
            self._pipe.send(wire.to_broker(batch.header, batch.bodies))

    def call(self, name: str, body: bytes, deadline_s: float) -> "asyncio.Future[bytes]":
        """Send a call in this session and return where its answer will be."""
        if self._pipe is None or self.welcome is None:
            raise session_lost()
        number = next(self._numbers)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        future.add_done_callback(lambda _: self._calls.pop(number, None))
        self._pipe.send(wire.to_broker(wire.Call(number, name, deadline_s), [body]))
        return future

    def answer(self, header: wire.Answer, body: bytes) -> None:
        """Send the answer to a call, if the session in which it came is still open."""
        self._send(header, [body])

    def emitted(self, topic: str, body: bytes, at: float) -> None:
        """Remember the last value of a topic, for a broker that has forgotten it."""
        self._emitted[topic] = (body, at)

    def serve(self, name: str) -> None:
        """Remember what is served, for the next session."""
        self._served.add(name)

    # -- subscriptions and leases

    def subscribe(self, feed: WorkFeed | EventFeed) -> int:
        """Fill the feed from now on, across sessions."""
        number = next(self._numbers)
        self._feeds[number] = feed
        if self.welcome is not None:
            self.ask(self._subscription(number, feed))
        return number

    def _subscription(self, number: int, feed: WorkFeed | EventFeed) -> SingleAsk:
        answer: Answer = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda a: self._subscribed(number, a))
        if isinstance(feed, EventFeed):
            return SingleAsk(lambda r: wire.Subscribe(r, number, feed.pattern), [], answer, anew=True)
        held = tuple(token for token, owner in self._held.items() if owner == number)[: wire.MAX_CREDIT]
        return SingleAsk(lambda r: wire.Consume(r, number, feed.pattern, feed.credit, held), [], answer, anew=True)

    def _subscribed(self, number: int, answer: Answer) -> None:
        error = None if answer.cancelled() else answer.exception()
        feed = self._feeds.get(number)
        if isinstance(error, Exception) and feed is not None:
            feed.fail(error)

    def unsubscribe(self, number: int) -> None:
        """Stop filling a feed and give back what nobody took from it."""
        feed = self._feeds.pop(number, None)
        if feed is None:
            return
        self._send(wire.Cancel(number))
        if isinstance(feed, WorkFeed):
            self.release(delivery.token for delivery in feed.drain())

    def release(self, tokens: Iterable[wire.Token]) -> None:
        """Give leases back untouched; nobody waits for the answer, since they would lapse otherwise."""
        for token in list(tokens):
            self._held.pop(token, None)
            self.ask(SettleAsk(wire.Outcome(token, wire.RELEASE), self._quiet()))

    def release_all(self, *, seen: bool) -> None:
        """End the subscriptions to work and give their deliveries back; with `seen` those too that were taken."""
        for number, feed in list(self._feeds.items()):
            if isinstance(feed, WorkFeed):
                self.unsubscribe(number)
                feed.fail(session_lost())
        if seen:
            self.release(self._held)

    def dropped(self, token: wire.Token) -> None:
        """Hear that the application has let go of a delivery; may be called from any thread."""
        if token in self._held:
            self._dropped.append(token)

    def settled(self, token: wire.Token) -> None:
        """Stop renewing a lease."""
        self._held.pop(token, None)

    def _quiet(self) -> Answer:
        """Return an answer that is only logged when it is an error."""

        def log_error(answer: Answer) -> None:
            error = None if answer.cancelled() else answer.exception()
            if error is not None:
                log.info("the broker did not take it: %s", error)

        answer: Answer = asyncio.get_running_loop().create_future()
        answer.add_done_callback(log_error)
        return answer

    # -- hearing

    def _on_lost(self, pipe: Pipe) -> None:
        """The broker would not know the next connection as ours; and it may have another key by now."""
        if pipe is self._pipe and self.welcome is not None:
            self._forget_session()

    def _on_message(self, pipe: Pipe, frames: wire.Frames) -> None:
        if pipe is not self._pipe:
            self._close_pipes(but=pipe)  # its server answers, so the others try a key that is not in use
        self._heard = asyncio.get_running_loop().time()
        try:
            header, bodies = wire.from_broker(frames)
        except WireError as error:
            log.error("the broker sent what is not the protocol: %s", error.message)
            return
        handler: Callable[[Link, Any, wire.Frames], None] | None = _HEARD.get(type(header))
        if handler is not None:
            handler(self, header, bodies)

    def _on_welcome(self, welcome: wire.Welcome, _bodies: wire.Frames) -> None:
        if self.welcome is None and self._pipe is not None:
            if welcome.next_key:
                self.server_keys = (self._pipe.server_key, welcome.next_key)
            self._welcomed(welcome)

    def _on_bye(self, bye: wire.Bye, _bodies: wire.Frames) -> None:
        if self.welcome is not None:
            if bye.code == wire.STOPPING and self._pipe is not None:
                self._pipe.send(wire.to_broker(wire.Bye()))
                self._pipe.close(LINGER_S)
            elif bye.code != wire.SESSION_UNKNOWN:
                log.error("the broker ended the session: %s (%s)", bye.message, bye.code)
            self._forget_session()

    def _on_results(self, results: wire.Results, _bodies: wire.Frames) -> None:
        batch = self._sent.pop(results.request, None)
        if batch is not None:
            for wait_s, ask in resolve(batch.asks, results):
                asyncio.get_running_loop().call_later(wait_s, self.ask, ask)

    def _on_deliver(self, deliver: wire.Deliver, bodies: wire.Frames) -> None:
        feed = self._feeds.get(deliver.subscription)
        for handed, body in zip(deliver.items, bodies, strict=True):
            if isinstance(feed, WorkFeed):
                self._held[handed.token] = deliver.subscription
                feed.put(Delivery(handed, body, self._settler))
            else:
                self.release([handed.token])

    def _on_happened(self, happened: wire.Happened, bodies: wire.Frames) -> None:
        feed = self._feeds.get(happened.subscription)
        if isinstance(feed, EventFeed):
            feed.put(Event(happened.topic, happened.origin, bodies[0], happened.at, happened.retained))

    def _on_called(self, asked: wire.Asked, bodies: wire.Frames) -> None:
        self._on_asked(asked, bodies[0])

    def _on_reply(self, reply: wire.Reply, bodies: wire.Frames) -> None:
        future = self._calls.get(reply.request)
        if future is None or future.done():
            return
        if reply.fault is not None:
            future.set_exception(error_of(reply.fault))
        else:
            future.set_result(bodies[0])


_HEARD: dict[type[wire.Header], Callable[[Link, Any, wire.Frames], None]] = {
    wire.Welcome: Link._on_welcome,
    wire.Bye: Link._on_bye,
    wire.Results: Link._on_results,
    wire.Deliver: Link._on_deliver,
    wire.Happened: Link._on_happened,
    wire.Asked: Link._on_called,
    wire.Reply: Link._on_reply,
}

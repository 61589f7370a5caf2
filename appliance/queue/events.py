"""Events: the last value of each topic, kept in memory, and who wants to hear of it."""

from collections import Counter

import msgspec

from appliance.errors import ApplianceError, Refused
from appliance.queue import wire
from appliance.queue.address import Home, matches
from appliance.queue.clock import Clock
from appliance.queue.errors import BodyTooLarge, NotPermitted
from appliance.queue.intake import BUSY_FULL_S, Ack
from appliance.queue.sessions import Outbox, Session, Watcher

MAX_EVENT = 2**20
"""Bytes of one event: it may go to very many, and libzmq counts what it keeps for each in messages."""
MAX_TOPICS = 10_000
MAX_KEPT_BYTES = 64 * 2**20
MAX_TOPICS_OF_ONE = 2_000
MAX_KEPT_BYTES_OF_ONE = 16 * 2**20
"""What one name may have the broker keep, so that it leaves room for the others."""
MAX_TOLD = 8192
MAX_TOLD_BYTES = 16 * 2**20
"""Told to watchers before a turn ends, or a few small messages of a peer could fill the memory."""
MANY_HINT = "A topic is for a state that changes; what happens once is work."


class Kept(msgspec.Struct, frozen=True):
    """The last value of a topic; `at` is Unix time."""

    body: bytes
    origin: str
    at: float


class Events:
    """Topics and their watchers."""

    def __init__(self, home: Home, clock: Clock, outbox: Outbox) -> None:
        self._home = home
        self._clock = clock
        self._outbox = outbox
        self._kept: dict[str, Kept] = {}
        self._kept_bytes = 0
        self._topics_of: Counter[str] = Counter()
        self._bytes_of: Counter[str] = Counter()
        self._watchers: list[Watcher] = []
        self._told = 0
        self._told_bytes = 0

    @property
    def laden(self) -> bool:
        """Whether a turn has enough to tell already."""
        return self._told >= MAX_TOLD or self._told_bytes >= MAX_TOLD_BYTES

    def begin(self) -> None:
        """Hear that what there was to tell is on its way."""
        self._told = self._told_bytes = 0

    def handle_emit(self, session: Session, header: wire.Emit, bodies: wire.Frames) -> None:
        """Keep the value and pass it on."""
        ack = Ack(session, header.request, 1)
        try:
            topic = self._home.short(header.topic)
            if not session.grant.allows("emit", topic):
                raise NotPermitted(f"{session.name} may not emit {topic}.")
            if len(bodies[0]) > MAX_EVENT:
                text = f"The event has {len(bodies[0])} bytes; the broker keeps at most {MAX_EVENT} of a topic."
                raise BodyTooLarge(text, hint="An event is a state that changes; send what is large as work.")
        except ApplianceError as error:
            ack.refuse(0, error)
        else:
            self._emit(session, topic, header, bodies[0], ack)
        ack.post(self._outbox)

    def _emit(self, session: Session, topic: str, header: wire.Emit, body: bytes, ack: Ack) -> None:
        old = self._kept.get(topic)
        at = self._clock.wall()
        if header.restore:
            at = min(at, header.at)
            if old is not None and old.at >= at:
                return
        grown = self._kept_bytes + len(body) - (len(old.body) if old else 0)
        if grown > MAX_KEPT_BYTES or (old is None and len(self._kept) >= MAX_TOPICS):
            ack.busy(0, "The broker keeps as many events as it may.", BUSY_FULL_S)
            return
        mine = old is not None and old.origin == session.name
        topics = self._topics_of[session.name] + (not mine)
        size = self._bytes_of[session.name] + len(body) - (len(old.body) if old is not None and mine else 0)
        if (topics > MAX_TOPICS_OF_ONE and not mine) or size > MAX_KEPT_BYTES_OF_ONE:
            ack.refuse(0, Refused(f"{session.name} has as many events kept as one name may.", hint=MANY_HINT))
            return
        if old is not None and not mine:
            self._topics_of[old.origin] -= 1
            self._bytes_of[old.origin] -= len(old.body)
        self._topics_of[session.name], self._bytes_of[session.name] = topics, size
        self._kept[topic] = kept = Kept(body, session.name, at)
        self._kept_bytes = grown
        for watcher in self._watchers:
            if matches(watcher.pattern, topic):
                self._send(watcher, topic, kept, retained=False)

    def handle_subscribe(self, session: Session, header: wire.Subscribe, _bodies: wire.Frames) -> None:
        """Start a subscription: first the values that are kept, then each new one."""
        ack = Ack(session, header.request, 1)
        try:
            session.expect_room(replaced=header.subscription in session.watchers)
            pattern = self._home.short_pattern(header.pattern)
            if not session.grant.allows("subscribe", pattern):
                raise NotPermitted(f"{session.name} may not subscribe to {pattern}.")
        except ApplianceError as error:
            ack.refuse(0, error)
            ack.post(self._outbox)
            return
        ack.post(self._outbox)
        self.cancel(session, header.subscription)
        watcher = session.watchers[header.subscription] = Watcher(session, header.subscription, pattern)
        self._watchers.append(watcher)
        for topic, kept in self._kept.items():
            if matches(pattern, topic):
                self._send(watcher, topic, kept, retained=True)

    def cancel(self, session: Session, number: int) -> None:
        """End a subscription."""
        watcher = session.watchers.pop(number, None)
        if watcher is not None:
            self._watchers.remove(watcher)

    def leave(self, session: Session) -> None:
        """End all subscriptions of a session."""
        for number in list(session.watchers):
            self.cancel(session, number)

    def _send(self, watcher: Watcher, topic: str, kept: Kept, *, retained: bool) -> None:
        self._told += 1
        self._told_bytes += len(kept.body)
        header = wire.Happened(watcher.number, topic, kept.origin, kept.at, retained)
        self._outbox.post(watcher.session, header, [kept.body], latest=(watcher.number, topic))

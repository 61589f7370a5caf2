"""Calls: from the caller to one of those who serve the name, and the answer back, or a clear error."""

import heapq
from collections import Counter
from collections.abc import Callable

import msgspec

from appliance.errors import ApplianceError
from appliance.queue import wire
from appliance.queue.address import Home
from appliance.queue.clock import Clock
from appliance.queue.errors import CALL_DEADLINE, NOT_SERVED, SERVER_LOST, NotPermitted
from appliance.queue.intake import Ack
from appliance.queue.sessions import Outbox, Session

MAX_PENDING = 1024
"""Calls that one session may have under way."""

OwnHandler = Callable[[bytes], msgspec.Struct]


class Pending(msgspec.Struct, gc=False):
    """A call that a server has in hand; `until` is broker time."""

    number: int
    name: str
    caller: Session
    request: int
    server: Session
    until: float


class Calls:
    """Servers by name, calls under way by number. `own` are the names that the broker answers itself."""

    def __init__(self, home: Home, clock: Clock, outbox: Outbox, own: dict[str, OwnHandler]) -> None:
        self._home = home
        self._clock = clock
        self._outbox = outbox
        self._own = own
        self._servers: dict[str, list[Session]] = {}
        self._pending: dict[int, Pending] = {}
        self._by_time: list[tuple[float, int]] = []
        self._asked: Counter[Session] = Counter()
        self._in_hand: Counter[Session] = Counter()
        self._next = 1

    def handle_serve(self, session: Session, header: wire.Serve, _bodies: wire.Frames) -> None:
        """Add a server for a name."""
        ack = Ack(session, header.request, 1)
        try:
            name = self._home.short(header.name)
            if name in self._own or not session.grant.allows("serve", name):
                raise NotPermitted(f"{session.name} may not serve {name}.")
        except ApplianceError as error:
            ack.refuse(0, error)
        else:
            if name not in session.serving:
                session.serving.add(name)
                self._servers.setdefault(name, []).append(session)
        ack.post(self._outbox)

    def handle_call(self, session: Session, header: wire.Call, bodies: wire.Frames) -> None:
        """Pass a call on, or answer it with an error at once."""
        try:
            name = self._home.short(header.name)
            if not session.grant.allows("call", name):
                raise NotPermitted(f"{session.name} may not call {name}.")
        except ApplianceError as error:
            problem = error.problem
            self._fail(session, header.request, wire.Fault(problem.code, problem.message, problem.hint, problem.status))
            return
        if name in self._own:
            self._answer_own(session, header, bodies[0], self._own[name])
            return
        servers = self._servers.get(name)
        if not servers:
            hint = "Is the component that serves it up? `alpha-ren status` shows it."
            self._fail(session, header.request, wire.Fault(NOT_SERVED, f"Nobody serves {name}.", hint, 503))
        elif self._asked[session] >= MAX_PENDING:
            hint = "Wait for some of them to be answered."
            self._fail(session, header.request, wire.Fault("queue-busy", "Too many calls are under way.", hint, 503))
        else:
            server = min(servers, key=self._in_hand.__getitem__)
            servers.append(servers.pop(servers.index(server)))
            self._pass_on(session, header, bodies[0], name, server)

    def _pass_on(self, session: Session, header: wire.Call, body: bytes, name: str, server: Session) -> None:
        number, self._next = self._next, self._next + 1
        until = self._clock.now() + header.deadline_s
        self._pending[number] = Pending(number, name, session, header.request, server, until)
        self._asked[session] += 1
        self._in_hand[server] += 1
        heapq.heappush(self._by_time, (until, number))
        self._outbox.post(server, wire.Asked(number, name, session.name, header.deadline_s), [body])

    def _answer_own(self, session: Session, header: wire.Call, body: bytes, handler: OwnHandler) -> None:
        try:
            reply = msgspec.msgpack.encode(handler(body))
        except msgspec.DecodeError as error:
            self._fail(
                session, header.request, wire.Fault("invalid-input", f"The request does not fit: {error}.", "", 400)
            )
        else:
            self._outbox.post(session, wire.Reply(header.request), [reply])

    def handle_answer(self, session: Session, header: wire.Answer, bodies: wire.Frames) -> None:
        """Give the answer to the caller; one that nobody waits for any more is dropped."""
        pending = self._pending.get(header.call)
        if pending is not None and pending.server is session:
            self._end(pending)
            self._outbox.post(pending.caller, wire.Reply(pending.request, header.fault), bodies)

    def leave(self, session: Session) -> None:
        """Take a session out: as a server, with an error for whom it served; as a caller, with its calls."""
        for name in session.serving:
            self._servers[name].remove(session)
        session.serving.clear()
        for pending in list(self._pending.values()):
            if pending.server is session:
                self._end(pending)
                message = f"Who served {pending.name} went away before it answered."
                hint = "Whether it was carried out is not known; look before you ask again."
                self._fail(pending.caller, pending.request, wire.Fault(SERVER_LOST, message, hint, 503))
            elif pending.caller is session:
                self._end(pending)

    def pass_time(self) -> None:
        """Answer the calls whose deadline has passed."""
        now = self._clock.now()
        while self._by_time and self._by_time[0][0] <= now:
            pending = self._pending.get(heapq.heappop(self._by_time)[1])
            if pending is not None:
                self._end(pending)
                message = f"{pending.name} was not answered in time."
                hint = "Whether it was carried out is not known; look before you ask again."
                self._fail(pending.caller, pending.request, wire.Fault(CALL_DEADLINE, message, hint, 504))

    def next_time(self) -> float | None:
        """Return the broker time of the next deadline."""
        return self._by_time[0][0] if self._by_time else None

    def _end(self, pending: Pending) -> None:
        del self._pending[pending.number]
        for counter, session in ((self._asked, pending.caller), (self._in_hand, pending.server)):
            counter[session] -= 1
            if not counter[session]:
                del counter[session]

    def _fail(self, session: Session, request: int, fault: wire.Fault) -> None:
        self._outbox.post(session, wire.Reply(request, fault), [b""])

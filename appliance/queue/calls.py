"""Calls: from the caller to one of those who serve the name, and the answer back, or a clear error."""

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import msgspec

from appliance.errors import NOT_DECODED, ApplianceError, InvalidInput
from appliance.queue import wire
from appliance.queue.address import Home
from appliance.queue.clock import Clock
from appliance.queue.errors import CALL_DEADLINE, NOT_SERVED, SERVER_LOST, NotPermitted, StoreFailed, StoreFull
from appliance.queue.intake import Ack
from appliance.queue.sessions import Outbox, Session

MAX_PENDING = 1024
"""Calls that one session may have under way."""

OWN_S = 0.05
"""Seconds of a turn in which the broker answers calls to itself; the others wait for the next."""

Later = Future[msgspec.Struct]
OwnHandler = Callable[[Session, bytes], msgspec.Struct | Later]
"""Answers a call to the broker itself, within its turn or later."""


class Pending(msgspec.Struct, gc=False):
    """A call that a server has in hand; `until` is broker time."""

    number: int
    name: str
    caller: Session
    request: int
    server: Session
    until: float


class Calls:
    """Servers by name, calls under way by number. `own` are the names that the broker answers itself.

    These are noted as they come, and carried out by `run_own`, inside the turn's transaction.
    """

    def __init__(self, home: Home, clock: Clock, outbox: Outbox, own: dict[str, OwnHandler]) -> None:
        self._home = home
        self._clock = clock
        self._outbox = outbox
        self._own = own
        self._noted: deque[tuple[Session, wire.Call, bytes]] = deque()
        self._later: list[tuple[Session, int, Later]] = []
        self._answered: list[tuple[Session, int, bytes]] = []
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
            session.expect_room(replaced=name in session.serving)
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
            self._refuse(session, header.request, error)
            return
        if self._asked[session] >= MAX_PENDING:
            hint = "Wait for some of them to be answered."
            self._fail(session, header.request, wire.Fault("queue-busy", "Too many calls are under way.", hint, 503))
        elif name in self._own:
            self._asked[session] += 1
            self._noted.append((session, msgspec.structs.replace(header, name=name), bodies[0]))
        else:
            self._pass_on(session, header.request, name, bodies[0], header.deadline_s)

    def _pass_on(self, caller: Session, request: int, name: str, body: bytes, deadline_s: float) -> None:
        servers = self._servers.get(name)
        if not servers:
            hint = "Is the component that serves it up? `alpha-ren status` shows it."
            self._fail(caller, request, wire.Fault(NOT_SERVED, f"Nobody serves {name}.", hint, 503))
            return
        server = min(servers, key=self._in_hand.__getitem__)
        servers.append(servers.pop(servers.index(server)))
        number, self._next = self._next, self._next + 1
        until = self._clock.now() + deadline_s
        self._pending[number] = Pending(number, name, caller, request, server, until)
        self._asked[caller] += 1
        self._in_hand[server] += 1
        heapq.heappush(self._by_time, (until, number))
        self._outbox.post(server, wire.Asked(number, name, caller.name, deadline_s), [body], call=number)

    def take_back(self, number: int) -> Pending | None:
        """Take a call away from its server, which has not heard of it."""
        pending = self._pending.get(number)
        if pending is not None:
            self._end(pending)
        return pending

    def pass_on_again(self, pending: Pending, body: bytes) -> None:
        """Give a call that was taken back to another server."""
        if not pending.caller.closed:
            left_s = max(0.0, pending.until - self._clock.now())
            self._pass_on(pending.caller, pending.request, pending.name, body, left_s)

    def run_own(self) -> None:
        """Carry out what was asked of the broker itself, as much as fits into a turn, and answer it."""
        for session, request, later in [each for each in self._later if each[2].done()]:
            self._later.remove((session, request, later))
            self._answer_own(session, request, later.result)
        until = time.monotonic() + OWN_S
        while self._noted and time.monotonic() < until:
            session, header, body = self._noted.popleft()
            self._answer_own(session, header.request, partial(self._own[header.name], session, body))

    def _answer_own(self, session: Session, request: int, handle: Callable[[], msgspec.Struct | Later]) -> None:
        if session.closed:
            return
        try:
            reply = handle()
        except NOT_DECODED as error:
            self._refuse(session, request, InvalidInput(f"The request does not fit: {error}."))
        except StoreFull:
            self._answered.append((session, request, b""))
            self._count_down(self._asked, session)
            raise
        except StoreFailed:
            raise
        except ApplianceError as error:
            self._refuse(session, request, error)
        else:
            if isinstance(reply, Future):
                self._later.append((session, request, reply))
                return
            self._answered.append((session, request, msgspec.msgpack.encode(reply)))
        self._count_down(self._asked, session)

    def committed(self) -> None:
        """Hear that the turn is on disk, and send what `run_own` has answered."""
        for session, request, reply in self._answered:
            self._outbox.post(session, wire.Reply(request), [reply])
        self._answered.clear()

    def undo(self, error: StoreFull) -> None:
        """Hear that the turn was undone: what `run_own` would have answered has not happened."""
        for session, request, _reply in self._answered:
            self._refuse(session, request, error)
        self._answered.clear()

    def handle_answer(self, session: Session, header: wire.Answer, bodies: wire.Frames) -> None:
        """Give the answer to the caller; one that nobody waits for any more is dropped."""
        pending = self._pending.get(header.call)
        if pending is not None and pending.server is session:
            self._end(pending)
            self._outbox.post(pending.caller, wire.Reply(pending.request, header.fault), bodies)

    def leave(self, session: Session) -> None:
        """Take a session out: as a server, with an error for whom it served; as a caller, with its calls."""
        for name in session.serving:
            servers = self._servers[name]
            servers.remove(session)
            if not servers:
                del self._servers[name]
        session.serving.clear()
        for pending in list(self._pending.values()):
            if pending.server is session:
                self._end(pending)
                message = f"Who served {pending.name} went away before it answered."
                hint = "Whether it was carried out is not known; look before you ask again."
                self._fail(pending.caller, pending.request, wire.Fault(SERVER_LOST, message, hint, 503))
            elif pending.caller is session:
                self._end(pending)
        self._asked.pop(session, None)

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
        """Return the broker time at which there is something to do, None if nothing waits."""
        if self._noted or any(later.done() for _session, _request, later in self._later):
            return self._clock.now()
        return self._by_time[0][0] if self._by_time else None

    def _end(self, pending: Pending) -> None:
        del self._pending[pending.number]
        self._count_down(self._asked, pending.caller)
        self._count_down(self._in_hand, pending.server)
        if len(self._by_time) > 2 * len(self._pending) + MAX_PENDING:  # deadlines may be far, and answers soon
            self._by_time = [(each.until, each.number) for each in self._pending.values()]
            heapq.heapify(self._by_time)

    def _count_down(self, counter: Counter[Session], session: Session) -> None:
        counter[session] -= 1
        if counter[session] <= 0:
            del counter[session]

    def _refuse(self, session: Session, request: int, error: ApplianceError) -> None:
        self._fail(session, request, wire.fault_of(error))

    def _fail(self, session: Session, request: int, fault: wire.Fault) -> None:
        self._outbox.post(session, wire.Reply(request, fault), [b""])

"""Whatever clients, operators, clocks and disk do in whatever order: every message has one history that makes sense."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.contracts.letters import Changed, Purge, Requeue
from appliance.queue import wire
from appliance.queue.address import matches
from appliance.queue.engine import FULL_FOR_NEW_S
from appliance.queue.inspection import STATE_NAMES
from appliance.queue.store import Store
from tests.unit.queue.desk import Desk, temporary_directory
from tests.unit.queue.narrow import NarrowStore
from tests.unit.queue.promises import FIRST_S, LEASE_S, MOST_S, OPEN, Message, Model

CONSUMERS = {"alice": ("w.*", 3), "bob": ("w.b", 2)}
ADDRESSES = ("w.a", "w.b")
OUTCOMES = [wire.DONE, wire.DONE, wire.RETRY, wire.REJECT, wire.RELEASE]
DELAYS = st.sampled_from([0.0, 0.0, 5.0])
MAYBE = st.none()
Times = tuple[float, float | None, float | None]
"""Delay, expiry and not-before, from now."""


class NarrowDesk(Desk):
    """A desk whose disk can be full; it leaves out the syncs, since nothing here pulls the plug."""

    def start(self, store: Store | None = None) -> None:
        self.narrow = NarrowStore(self.directory / "queue.sqlite")
        super().start(self.narrow)


class History(RuleBasedStateMachine):
    """Two consumers, two addresses, and a model that knows what must have become of every message."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = temporary_directory()
        self.desk = NarrowDesk(
            Path(self.folder.name), lease_s=LEASE_S, heartbeat_s=3.0, retry_first_s=FIRST_S, retry_most_s=MOST_S,
            keep_s=86400.0 * 30,
        )  # fmt: skip
        self.model = Model()
        self.uptime = 0.0
        for name in CONSUMERS:
            self.connect(name)
        self.look()

    def teardown(self) -> None:
        try:
            self.come_to_rest()
        finally:
            self.desk.store.close()
            self.folder.cleanup()

    def come_to_rest(self) -> None:
        """Whoever gets something says done, until everything has ended in one of the ways there are."""
        self.desk.clock.unix = max([self.desk.clock.unix, *(m.not_before or 0.0 for m in self.model.messages.values())])
        for _ in range(200):
            for name in CONSUMERS:
                for m in [m for m in self.model.leased(name) if m.counts]:
                    assert self.desk.settle(name, m.token) == wire.STORED
                    m.state = "done"
                    self.look()
            if not any(m.state in OPEN for m in self.model.messages.values()):
                return
            self.second(())
            self.look()
        raise AssertionError(f"{[m for m in self.model.messages.values() if m.state in OPEN]} never ended")

    # -- what is seen

    def read_clocks(self) -> None:
        clock = self.desk.clock
        self.model.now, self.model.wall, self.model.uptime = clock.now(), clock.unix, self.uptime

    def look(self) -> None:
        """Bring the model up to the clocks, and check what was delivered."""
        self.read_clocks()
        self.model.pass_time()
        for name in CONSUMERS:
            for handed in self.desk.deliveries(name):
                self.model.delivered(handed, name)
                assert sum(m.counts for m in self.model.leased(name)) <= CONSUMERS[name][1]

    def connect(self, name: str, held: tuple[wire.Token, ...] = ()) -> None:
        self.desk.hello(name)
        pattern, credit = CONSUMERS[name]
        for m in self.model.leased(name):
            m.counts = m.token in held
            if m.counts:
                m.until = self.desk.clock.now() + LEASE_S
        self.desk.consume(name, pattern, credit, held)

    def second(self, heard: tuple[str, ...]) -> None:
        """Let a second pass; of those who are heard the leases are renewed, the sessions of all others stay."""
        self.uptime += 1.0
        self.desk.clock.advance(1.0)
        for name in CONSUMERS:
            mine = tuple(m.token for m in self.model.leased(name)) if name in heard else ()
            for m in self.model.leased(name) if mine else ():
                m.until = self.desk.clock.now() + LEASE_S
            self.desk.engine.handle(name.encode(), name, wire.to_broker(wire.Heartbeat(mine)))
        self.desk.turn()

    # -- what may happen

    @rule(
        address=st.sampled_from(ADDRESSES), key=st.sampled_from([None, None, "k", "l"]), most=st.integers(1, 3),
        times=st.tuples(DELAYS, MAYBE | st.sampled_from([0.0, 3.0, 30.0]), MAYBE | st.sampled_from([-5.0, 4.0])),
    )  # fmt: skip
    def publish(self, address: str, key: str | None, most: int, times: Times) -> None:
        self.read_clocks()
        delay, expires, begins = times
        not_before = None if begins is None else self.desk.clock.unix + begins
        item = wire.Item(address, str(len(self.model.messages)), delay, not_before, expires, most, key)
        assert self.desk.publish("alice", item) == wire.STORED
        self.model.stored(item)
        self.look()

    @rule(number=st.integers(2, 5), address=st.sampled_from(ADDRESSES), key=st.sampled_from([None, "k"]))
    def publish_some(self, number: int, address: str, key: str | None) -> None:
        self.read_clocks()
        names = [str(len(self.model.messages) + n) for n in range(number)]
        items = tuple(wire.Item(address, name, max_attempts=2, key=key) for name in names)
        assert set(self.desk.ask("alice", wire.Publish(1, items), *[b""] * number).statuses) == {wire.STORED}
        for item in items:
            self.model.stored(item)
        self.look()

    @precondition(lambda self: self.model.messages)
    @rule(pick=st.integers(0, 99))
    def publish_again(self, pick: int) -> None:
        name = str(pick % len(self.model.messages))
        assert self.desk.publish("alice", wire.Item("w.a", name)) == wire.DUPLICATE
        self.look()

    @rule(
        pick=st.integers(0, 9), outcome=st.sampled_from(OUTCOMES), delay=MAYBE | DELAYS,
        chance=st.sampled_from([0.0, 0.5, 1.0]),
    )  # fmt: skip
    def settle(self, pick: int, outcome: int, delay: float | None, chance: float) -> None:
        leased = self.model.leased(*CONSUMERS)
        if not leased:
            return
        m = leased[pick % len(leased)]
        self.desk.chance = self.model.chance = chance
        self.read_clocks()
        assert self.desk.settle(m.holder, m.token, outcome, delay) == wire.STORED
        self.settled(m, outcome, delay)
        self.look()
        if outcome in {wire.DONE, wire.REJECT}:  # said twice, it is still true
            assert self.desk.settle(m.holder, m.token, outcome) == wire.STORED

    def settled(self, m: Message, outcome: int, delay: float | None) -> None:
        if outcome == wire.DONE:
            m.state = "done"
        elif outcome == wire.RELEASE:
            m.attempt -= 1
            self.model.wait(m, delay or 0.0)
        else:
            self.model.failed(m, lapsed=False, delay_s=delay, for_good=outcome == wire.REJECT)

    @rule(pick=st.integers(0, 9), outcome=st.sampled_from([wire.DONE, wire.RETRY, wire.REJECT, wire.RELEASE]))
    def settle_late(self, pick: int, outcome: int) -> None:
        newest = self.model.old_tokens[-10:]
        if newest:
            holder, token = newest[-1 - pick % len(newest)]
            assert self.desk.settle(holder, token, outcome) == wire.STALE
            self.look()

    @rule(pick=st.integers(0, 9), address=st.sampled_from(ADDRESSES), key=st.sampled_from([None, "k"]))
    def move(self, pick: int, address: str, key: str | None) -> None:
        leased = self.model.leased(*CONSUMERS)
        if not leased:
            return
        m = leased[pick % len(leased)]
        self.read_clocks()
        header = wire.Move(4, m.token, wire.Item(address, str(len(self.model.messages)), max_attempts=2, key=key))
        assert self.desk.ask(m.holder, header, b"").statuses == (wire.STORED,)
        m.state = "done"
        self.model.stored(header.item)
        self.look()
        assert self.desk.ask(m.holder, header, b"").statuses == (wire.DUPLICATE,)

    @rule(seconds=st.sampled_from([1, 3, 11]), heard=st.sampled_from([(), (), ("alice",), ("alice", "bob")]))
    def pass_time(self, seconds: int, heard: tuple[str, ...]) -> None:
        for _ in range(seconds):
            self.second(heard)
            self.look()

    @rule(seconds=st.sampled_from([-3600.0, -5.0, 5.0, 3600.0]))
    def move_the_wall_clock(self, seconds: float) -> None:
        self.desk.clock.unix += seconds
        self.desk.turn()
        self.look()

    @rule(seconds=st.sampled_from([5.0, 60.0]))
    def stand_still(self, seconds: float) -> None:
        """The broker gets no time: no lease gets shorter by it."""
        self.uptime += seconds
        self.desk.clock.advance(seconds)
        for m in self.model.leased(*CONSUMERS):
            m.until += seconds
        self.desk.turn()
        self.look()

    @rule(name=st.sampled_from(list(CONSUMERS)))
    def leave(self, name: str) -> None:
        self.read_clocks()
        self.desk.send(name, wire.Bye())
        for m in self.model.leased(name):
            self.model.failed(m, lapsed=True)
        self.look()
        self.connect(name)
        self.look()

    @rule(name=st.sampled_from(list(CONSUMERS)), forgetful=st.booleans())
    def come_again(self, name: str, forgetful: bool) -> None:
        self.connect(name, () if forgetful else tuple(m.token for m in self.model.leased(name)))
        self.look()

    @rule(down=st.sampled_from([0.0, 2.0, 7200.0]), politely=st.booleans())
    def restart(self, down: float, politely: bool) -> None:
        if politely:
            self.desk.engine.say_bye()
        self.desk.clock.advance(down)
        self.desk.restart()
        for m in self.model.leased(*CONSUMERS):
            m.until, m.counts = self.desk.clock.now() + LEASE_S, False
        for name in CONSUMERS:
            self.connect(name, tuple(m.token for m in self.model.leased(name)))
        self.look()

    @rule(address=st.sampled_from(ADDRESSES))
    def requeue(self, address: str) -> None:
        dead = [m for m in self.model.messages.values() if (m.address, m.state) == (address, "dead")]
        assert self.operate("queue.requeue", Requeue(address=address)) == len(dead)
        self.read_clocks()
        for m in dead:
            self.model.requeued(m)
        self.look()

    @rule(address=st.sampled_from(ADDRESSES), dead=st.booleans())
    def purge(self, address: str, dead: bool) -> None:
        state = "dead" if dead else "ready"
        there = [m for m in self.model.messages.values() if (m.address, m.state) == (address, state)]
        assert self.operate("queue.purge", Purge(address=address, state="dead" if dead else "ready")) == len(there)
        for m in there:
            self.model.purged(m)
        self.look()

    def operate(self, name: str, choice: msgspec.Struct) -> int:
        """Make an operator's call and return how many messages it changed."""
        self.desk.send("alice", wire.Call(8, name, 5.0), msgspec.msgpack.encode(choice))
        inbox = self.desk.heard("alice")
        (reply,) = (bodies[0] for header, bodies in inbox if isinstance(header, wire.Reply))
        self.desk.inboxes["alice"] = [entry for entry in inbox if not isinstance(entry[0], wire.Reply)]
        return msgspec.msgpack.decode(reply, type=Changed).count

    @rule(room=st.integers(0, 8), what=st.sampled_from(["publish", "settle", "move", "requeue", "nothing", "restart"]))
    def fill_the_disk(self, room: int, what: str) -> None:
        """While there is no room nothing happens but by halves; those who ask hear which half."""
        everybody = tuple(CONSUMERS)
        self.second(everybody)
        self.look()
        self.desk.narrow.room = room
        self.read_clocks()
        self.on_a_full_disk(what)
        self.look()
        for n in range(5):
            if n == 3:
                self.desk.narrow.room = None
            self.second(everybody)
            self.look()
        for _ in range(int(FULL_FOR_NEW_S) + 2):
            self.second(everybody)
            self.look()
        self.look()

    def on_a_full_disk(self, what: str) -> None:
        leased = self.model.leased(*CONSUMERS)
        item = wire.Item("w.a", str(len(self.model.messages)), max_attempts=2)
        acts: dict[str, Callable[[], None]] = {
            "publish": lambda: self.publish_narrowly(item),
            "settle": lambda: self.settle_narrowly(leased[0]) if leased else None,
            "move": lambda: self.move_narrowly(leased[0], item) if leased else None,
            "requeue": self.requeue_narrowly,
            "restart": lambda: self.restart(2.0, politely=True),
            "nothing": lambda: None,
        }
        acts[what]()

    def publish_narrowly(self, item: wire.Item) -> None:
        if self.desk.publish("alice", item) == wire.STORED:
            self.model.stored(item)

    def settle_narrowly(self, m: Message) -> None:
        status = self.desk.settle(m.holder, m.token)
        assert status in {wire.STORED, wire.BUSY}
        if status == wire.STORED:
            m.state = "done"

    def move_narrowly(self, m: Message, item: wire.Item) -> None:
        status = self.desk.ask(m.holder, wire.Move(4, m.token, item), b"").statuses[0]
        assert status in {wire.STORED, wire.BUSY}
        if status == wire.STORED:
            m.state = "done"
            self.model.stored(item)

    def requeue_narrowly(self) -> None:
        dead = [m for m in self.model.messages.values() if (m.address, m.state) == ("w.a", "dead")]
        body = msgspec.msgpack.encode(Requeue(address="w.a"))
        self.desk.send("alice", wire.Call(8, "queue.requeue", 5.0), body)
        inbox = self.desk.heard("alice")
        (reply,) = (header for header, _ in inbox if isinstance(header, wire.Reply))
        self.desk.inboxes["alice"] = [entry for entry in inbox if entry[0] is not reply]
        if reply.fault is None:
            for m in dead:
                self.model.requeued(m)

    # -- what always holds

    @invariant()
    def every_message_is_in_one_state(self) -> None:
        stored = {b.id: STATE_NAMES[b.state] for b in self.desk.store.recent(10_000) if b.address in ADDRESSES}
        assert stored == {m.id: m.state for m in self.model.messages.values()}

    @invariant()
    def the_account_is_right(self) -> None:
        for address in ADDRESSES:
            here = Counter(m.state for m in self.model.messages.values() if m.address == address)
            counts = self.desk.engine._work.ledger.of(address)
            assert (counts.ready, counts.leased, counts.dead) == (here["ready"], here["leased"], here["dead"])
            ended = (counts.done_total, counts.expired_total, counts.purged_total)
            assert ended == (here["done"], here["expired"], here["purged"])
        notices = [b for b in self.desk.store.recent(10_000) if b.address == "notice.mail"]
        assert len(notices) == self.model.deaths

    @invariant()
    def nobody_with_room_is_kept_waiting(self) -> None:
        for name, (pattern, credit) in CONSUMERS.items():
            if sum(m.counts for m in self.model.leased(name)) < credit:
                assert [m.id for m in self.model.deliverable() if matches(pattern, m.address)] == []


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=30,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)

"""Whatever clients do in whatever order, with restarts in between: every message has one history that makes sense."""

from pathlib import Path
from typing import Literal

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from appliance.contracts.letters import Changed, Choice, Purge, Requeue
from appliance.queue import wire
from appliance.queue.inspection import STATE_NAMES
from appliance.queue.sqlite_store import SqliteStore
from tests.unit.queue.desk import Desk, temporary_directory

LEASE_S = 10.0
ATTEMPTS = 2


class Message(msgspec.Struct):
    """What the test knows of a message that was acknowledged."""

    id: str
    key: str | None
    due: float
    state: str = "ready"
    attempt: int = 0
    fence: int = 0
    holder: str = ""
    token: wire.Token = (0, 0)
    until: float = 0.0


class History(RuleBasedStateMachine):
    """Two clients at one address; `sum of time` is what the test's own clock says."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = temporary_directory()
        self.desk = Desk(Path(self.folder.name), lease_s=LEASE_S, heartbeat_s=3.0)
        self.messages: dict[str, Message] = {}
        self.time = 0.0
        self.deaths = 0
        self.old_tokens: list[tuple[str, wire.Token]] = []
        self.lenient()
        self.connect()

    def lenient(self) -> None:
        """Leave out the syncs: nothing here pulls the plug, and thousands of turns are quicker."""
        assert isinstance(self.desk.store, SqliteStore)
        self.desk.store._db.execute("PRAGMA synchronous = OFF")

    def connect(self) -> None:
        for name in ("alice", "bob"):
            self.desk.hello(name)
            held = tuple(m.token for m in self.messages.values() if m.state == "leased" and m.holder == name)
            self.desk.consume(name, "a", 2, held)
        self.hear()

    def teardown(self) -> None:
        self.desk.store.close()
        self.folder.cleanup()

    def hear(self) -> None:
        """Check each delivery against what is known of its message."""
        for name in ("alice", "bob"):
            for handed in self.desk.deliveries(name):
                m = self.messages[handed.id]  # nothing is delivered that nobody published
                assert m.state == "ready" or (m.state == "leased" and m.until <= self.time)
                assert m.due <= self.time + 1e-6
                assert handed.attempt == m.attempt + 1 <= ATTEMPTS
                assert handed.token[1] > m.fence
                if m.key is not None:
                    others = [o for o in self.messages.values() if o.key == m.key and o is not m]
                    assert not any(o.state == "leased" for o in others)
                    assert all(o.state in ("done", "dead", "purged") for o in others if int(o.id) < int(m.id))
                if m.holder:
                    self.old_tokens.append((m.holder, m.token))
                m.state, m.attempt, m.fence, m.holder, m.token = (
                    "leased",
                    handed.attempt,
                    handed.token[1],
                    name,
                    handed.token,
                )
                m.until = self.time + LEASE_S

    def lapse(self) -> None:
        """Bring the model up to what the passing of time has done."""
        for m in self.messages.values():
            if m.state == "leased" and m.until <= self.time:
                self.old_tokens.append((m.holder, m.token))
                self.end(m, "dead" if m.attempt >= ATTEMPTS else "ready")

    def end(self, m: Message, state: str) -> None:
        """Note the end of a lease."""
        m.state = state
        self.deaths += state == "dead"

    @rule(number=st.integers(3, 6))
    def publish_some(self, number: int) -> None:
        for _ in range(number):
            self.publish_one(0.0, None)
        self.hear()

    @rule(delay=st.sampled_from([0.0, 0.0, 5.0]), key=st.sampled_from([None, None, "k"]), again=st.booleans())
    def publish(self, delay: float, key: str | None, again: bool) -> None:
        if again and self.messages:
            name = next(iter(self.messages))
            assert self.desk.publish("alice", wire.Item("a", name)) == wire.DUPLICATE
        else:
            self.publish_one(delay, key)
        self.hear()

    def publish_one(self, delay: float, key: str | None) -> None:
        name = str(len(self.messages))
        item = wire.Item("a", name, delay, max_attempts=ATTEMPTS, key=key)
        self.messages[name] = Message(name, key, self.time + delay)
        assert self.desk.publish("alice", item) == wire.STORED

    @rule(
        pick=st.integers(0, 9), outcome=st.sampled_from([wire.DONE, wire.DONE, wire.RETRY, wire.REJECT, wire.RELEASE]),
        delay=st.sampled_from([0.0, 4.0]),
    )  # fmt: skip
    def settle(self, pick: int, outcome: int, delay: float) -> None:
        leased = [m for m in self.messages.values() if m.state == "leased"]
        if not leased:
            return
        m = leased[pick % len(leased)]
        if outcome in {wire.RETRY, wire.RELEASE}:
            m.due = self.time + (delay if outcome == wire.RETRY else 0.0)
        holder, token = m.holder, m.token
        ends = {wire.DONE: "done", wire.REJECT: "dead"}.get(outcome, "ready")
        self.end(m, "dead" if outcome == wire.RETRY and m.attempt >= ATTEMPTS else ends)
        if outcome == wire.RELEASE:
            m.attempt -= 1
        wait = delay if outcome == wire.RETRY else 0.0
        assert self.desk.settle(holder, token, outcome, wait) == wire.STORED
        self.hear()

    @rule(pick=st.integers(0, 99), outcome=st.sampled_from([wire.DONE, wire.RETRY, wire.REJECT]))
    def settle_late(self, pick: int, outcome: int) -> None:
        if not self.old_tokens:
            return
        holder, token = self.old_tokens[pick % len(self.old_tokens)]
        assert self.desk.settle(holder, token, outcome) == wire.STALE
        self.hear()

    @rule()
    def requeue(self) -> None:
        for m in self.operate("queue.requeue", Requeue(address="a"), "dead"):
            m.state, m.attempt, m.due = "ready", 0, self.time
        self.hear()

    @rule(state=st.sampled_from(["dead", "ready"]))
    def purge(self, state: Literal["dead", "ready"]) -> None:
        for m in self.operate("queue.purge", Purge(address="a", state=state), state):
            m.state = "purged"
        self.hear()

    def operate(self, call: str, request: Choice, state: str) -> list[Message]:
        """Let an operator change all messages in `state`, and return them; no token of theirs is worth anything now."""
        meant = [m for m in self.messages.values() if m.state == state]
        self.desk.send("alice", wire.Call(9, call, 5.0), msgspec.msgpack.encode(request))
        (found,) = [(h, b) for h, b in self.desk.inboxes["alice"] if isinstance(h, wire.Reply)]
        self.desk.inboxes["alice"].remove(found)
        assert msgspec.msgpack.decode(found[1][0], type=Changed).count == len(meant)
        self.old_tokens += [(m.holder, m.token) for m in meant if m.holder]
        return meant

    @rule(seconds=st.sampled_from([1, 5, 11]), heard=st.sampled_from([(), (), ("alice",), ("alice", "bob")]))
    def pass_time(self, seconds: int, heard: tuple[str, ...]) -> None:
        for _ in range(seconds):
            self.time += 1.0
            self.desk.clock.advance(1.0)
            for name in ("alice", "bob"):
                mine = tuple(m.token for m in self.messages.values() if m.state == "leased" and m.holder == name)
                if name in heard:
                    for m in self.messages.values():
                        if m.token in mine and m.state == "leased":
                            m.until = self.time + LEASE_S
                self.desk.engine.handle(
                    name.encode(), name, wire.to_broker(wire.Heartbeat(mine if name in heard else ()))
                )  # both sessions stay; who is not heard renews nothing
            self.lapse()
            self.desk.turn()
            self.hear()

    @rule()
    def restart(self) -> None:
        self.desk.restart()
        self.lenient()
        for m in self.messages.values():
            if m.state == "leased":
                m.until = self.time + LEASE_S
        self.connect()
        for m in self.messages.values():
            if m.state == "leased":
                m.until = self.time + LEASE_S

    @invariant()
    def every_message_is_in_one_state_and_the_account_is_right(self) -> None:
        stored = {b.id: STATE_NAMES[b.state] for b in self.desk.store.recent(10_000) if b.address == "a"}
        assert stored == {m.id: m.state for m in self.messages.values()}
        counts = self.desk.engine._work.ledger.of("a")
        expected = {
            state: sum(m.state == state for m in self.messages.values())
            for state in ("ready", "leased", "done", "dead", "purged")
        }
        counted = (counts.ready, counts.leased, counts.done_total, counts.dead, counts.purged_total)
        assert counted == tuple(expected.values())
        notices = [b for b in self.desk.store.recent(10_000) if b.address == "notice.mail"]
        assert len(notices) == counts.dead_total == self.deaths


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=100,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)

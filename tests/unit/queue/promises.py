"""What the queue promises, as a model small enough to be read: messages, clocks, and what either does to the other."""

from collections.abc import Iterable, Iterator

import msgspec

from appliance.queue import wire

LEASE_S = 10.0
FIRST_S = 1.0
MOST_S = 4.0
OPEN = ("ready", "leased")


class Message(msgspec.Struct):
    """A message that was acknowledged; the model has them in the order in which they were stored.

    `due` and `until` are broker time, `not_before` and `expires_at` Unix time; `early` is what the broker must have
    run for, restarts and all, before the message may be delivered. `counts` says whether it uses up credit.
    """

    id: str
    address: str
    key: str | None
    most: int
    due: float | None
    early: float
    not_before: float | None
    expires_at: float | None
    state: str = "ready"
    attempt: int = 0
    fence: int = 0
    holder: str = ""
    until: float = 0.0
    counts: bool = True
    token: wire.Token = (0, 0)


class Model:
    """`now`, `wall` and `uptime` are set by the test before it asks."""

    def __init__(self) -> None:
        self.messages: dict[str, Message] = {}
        self.old_tokens: list[tuple[str, wire.Token]] = []
        self.deaths = 0
        self.chance = 0.0
        self.now = self.wall = self.uptime = 0.0

    def stored(self, item: wire.Item) -> None:
        """A message was acknowledged."""
        self.messages[item.id] = Message(
            item.id,
            item.address,
            item.key,
            item.max_attempts or 0,
            self.now + item.delay_s if item.delay_s else None,
            self.uptime + item.delay_s,
            item.not_before,
            None if item.expires_s is None else self.wall + item.expires_s,
        )
        self.pass_time()

    def leased(self, *holders: str) -> list[Message]:
        """Return what these have in hand."""
        return [m for m in self.messages.values() if m.state == "leased" and m.holder in holders]

    def pass_time(self) -> None:
        """Bring everything up to what the clocks say."""
        for m in self.messages.values():
            if m.state == "leased" and m.until <= self.now:
                self.failed(m, lapsed=True)
            if m.state != "ready":
                continue
            if m.due is not None and m.due <= self.now:
                m.due = None
            if m.not_before is not None and m.not_before <= self.wall:
                m.not_before = None
            if m.expires_at is not None and m.expires_at <= self.wall:
                m.state = "expired"

    def failed(self, m: Message, *, lapsed: bool, delay_s: float | None = None, for_good: bool = False) -> None:
        """An attempt has ended badly."""
        if lapsed:
            self.forget_token(m)
        if for_good or m.attempt >= m.most:
            m.state = "dead"
            self.deaths += 1
            return
        if delay_s is None:
            failures = m.attempt - 1 if lapsed else m.attempt
            whole = min(MOST_S, FIRST_S * 2.0 ** (failures - 1)) if failures else 0.0
            delay_s = whole * (0.5 + 0.5 * self.chance)
        self.wait(m, delay_s)

    def wait(self, m: Message, delay_s: float) -> None:
        """It is nobody's again, and waits for its next attempt."""
        m.state = "ready"
        m.due = self.now + delay_s if delay_s else None
        m.early = self.uptime + delay_s

    def requeued(self, m: Message) -> None:
        """A dead letter is sent round again."""
        self.forget_token(m)
        m.state, m.attempt, m.due, m.not_before = "ready", 0, None, None
        if m.expires_at is not None and m.expires_at <= self.wall:
            m.expires_at = None

    def purged(self, m: Message) -> None:
        """An operator dropped it."""
        self.forget_token(m)
        m.state = "purged"

    def forget_token(self, m: Message) -> None:
        """The last token of a message is worth nothing from now on."""
        if m.token != (0, 0):
            self.old_tokens.append((m.holder, m.token))

    def delivered(self, handed: wire.Handed, holder: str) -> None:
        """Check a delivery against all that was promised."""
        m = self.messages[handed.id]  # nothing is delivered that nobody published
        assert m.address == handed.address
        assert m.state == "ready", f"{m.id} was {m.state}"
        assert m.due is None, f"{m.id} is not due"
        assert self.uptime >= m.early - 1e-6, f"{m.id} was delivered before its time"
        assert m.not_before is None, f"{m.id} has not begun"
        assert m.expires_at is None or m.expires_at > self.wall, f"{m.id} has expired"
        assert handed.attempt == m.attempt + 1 <= m.most
        assert handed.token[1] > m.fence
        assert not list(self.in_the_way(m)), f"{m.id} overtook one of its key, or met it"
        self.forget_token(m)
        m.state, m.attempt, m.fence, m.holder, m.token = "leased", handed.attempt, handed.token[1], holder, handed.token
        m.until, m.counts = self.now + LEASE_S, True

    def in_the_way(self, m: Message) -> Iterator[Message]:
        """Yield what keeps a message from being leased: an open elder of its key, or a leased one."""
        elder = m.key is not None
        for other in self.messages.values() if elder else ():
            if other is m:
                elder = False
            elif (other.address, other.key) == (m.address, m.key) and (
                other.state == "leased" or (elder and other.state in OPEN)
            ):
                yield other

    def deliverable(self) -> Iterable[Message]:
        """Yield what somebody with room must have been given."""
        for m in self.messages.values():
            if m.state == "ready" and m.due is None and m.not_before is None and not any(self.in_the_way(m)):
                yield m

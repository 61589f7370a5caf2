"""Histories told by hand, for the checker to judge."""

from appliance.queue.store import Brief, State
from tests.chaos.checker import Violation, check
from tests.chaos.history import (
    Act,
    Answer,
    ClockMoved,
    Delivered,
    Line,
    Operate,
    Operated,
    Outcome,
    Publish,
    Published,
    Settle,
    Settled,
    Settlement,
)

UNIX = 1_800_000_000.0


class Story:
    """A history told by hand, one second a line, and the store at its end."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.rows: list[Brief] = []
        self.at = 0.0

    def _now(self, at: float | None) -> tuple[float, float]:
        self.at = self.at + 1.0 if at is None else at
        return self.at, UNIX + self.at

    def publish(
        self, name: str, answer: Answer | None = "stored", *, by: str = "p", at: float | None = None,
        key: str | None = None, delay_s: float = 0.0, not_before: float | None = None, expires_s: float | None = None,
        most: int = 8, origin: str = "",
    ) -> None:  # fmt: skip
        """An attempt and its answer, if one came."""
        at, wall = self._now(at)
        self.lines.append(
            Publish(
                by=by, at=at, wall=wall, id=name, address="a", key=key, delay_s=delay_s, not_before=not_before,
                expires_s=expires_s, max_attempts=most, origin=origin,
            )
        )  # fmt: skip
        if answer is not None:
            self.lines.append(
                Published(by=by, at=at + 0.5, wall=wall + 0.5, id=name, answer=answer, began=at, origin=origin)
            )  # fmt: skip

    def deliver(
        self, name: str, seq: int, fence: int = 1, *, at: float | None = None, attempt: int | None = None,
        address: str = "a", origin: str = "p", whole: bool = True,
    ) -> None:  # fmt: skip
        """A message in a consumer's hands."""
        at, wall = self._now(at)
        self.lines.append(
            Delivered(
                by="c", at=at, wall=wall, seq=seq, fence=fence, id=name, origin=origin, address=address,
                attempt=fence if attempt is None else attempt, whole=whole,
            )
        )  # fmt: skip

    def settle(
        self, seq: int, fence: int = 1, outcome: Outcome = "done", answer: Settlement | None = "ok",
        *, delay_s: float = 0.0, at: float | None = None, moved: str = "",
    ) -> None:  # fmt: skip
        """A settle and its answer, if one came."""
        at, wall = self._now(at)
        new = ("p", moved) if moved else None
        self.lines.append(
            Settle(by="c", at=at, wall=wall, seq=seq, fence=fence, outcome=outcome, delay_s=delay_s, moved=new)
        )  # fmt: skip
        if answer is not None:
            self.lines.append(
                Settled(
                    by="c", at=at + 0.5, wall=wall + 0.5, seq=seq, fence=fence, outcome=outcome, answer=answer,
                    began=at, delay_s=delay_s,
                )
            )  # fmt: skip

    def row(
        self, name: str, seq: int, state: State = State.DONE, *, origin: str = "p", attempt: int = 1, most: int = 8,
        address: str = "a", changed_at: float = UNIX,
    ) -> None:  # fmt: skip
        """What the store holds."""
        self.rows.append(
            Brief(seq, origin, name, address, state, attempt, most, 1, UNIX, changed_at, "c", "")
        )  # fmt: skip

    def dead(self, name: str, seq: int, *, attempt: int = 1) -> None:
        """A dead letter and its notice."""
        self.row(name, seq, State.DEAD, attempt=attempt)
        self.notice(seq)

    def notice(self, seq: int, fence: int = 1) -> None:
        """The life of a notice."""
        place = 1000 * fence + seq
        self.row(f"dead-letter-{seq}-{fence}", place, State.DONE, origin="queue", address="notice.mail")
        self.deliver(f"dead-letter-{seq}-{fence}", place, origin="queue", address="notice.mail")
        self.settle(place)

    def operate(self, act: Act, *seqs: int, confirmed: bool = True) -> None:
        """What an operator did, and was told of."""
        at, wall = self._now(None)
        self.lines.append(Operate(by="nemesis", at=at, wall=wall, act=act, seqs=seqs))
        if confirmed:
            self.lines.append(Operated(by="nemesis", at=at + 0.5, wall=wall + 0.5, act=act, seqs=seqs))

    def move(self, name: str, seq: int, new: str, answer: Settlement | None = "ok") -> None:
        """A message in hand becomes another, which is published in the name of the first publisher."""
        self.publish(new, None if answer != "ok" else "stored", by="c", origin="p")
        self.settle(seq, outcome="move", answer=answer, moved=new)

    def done(self, name: str, seq: int, **wishes: object) -> None:
        """The whole life of a message."""
        self.publish(name, **wishes)  # type: ignore[arg-type]  # passed through
        self.deliver(name, seq)
        self.settle(seq)
        self.row(name, seq)

    def check(self) -> list[Violation]:
        """The checker's word."""
        return check(sorted(self.lines, key=lambda line: line.at), self.rows)


def good() -> Story:
    """A history with something of everything, all of it as it should be."""
    s = Story()
    s.done("plain", 1)
    s.publish("plain", "duplicate")
    s.publish("unknown and lost", None)
    s.publish("unknown and stored", "unknown")
    s.row("unknown and stored", 2)
    s.deliver("unknown and stored", 2)
    s.settle(2, answer="unknown")
    s.publish("busy", "busy")
    s.publish("lapsed", key="k")
    s.publish("behind it", key="k")
    s.deliver("lapsed", 3)
    s.deliver("lapsed", 3, 3)
    s.settle(3, 1, answer="stale")
    s.settle(3, 3, "retry", delay_s=2.0)
    s.at += 2
    s.deliver("lapsed", 3, 4)
    s.settle(3, 4)
    s.row("lapsed", 3, attempt=3)
    s.deliver("behind it", 4)
    s.settle(4)
    s.row("behind it", 4)
    s.publish("rejected")
    s.deliver("rejected", 5)
    s.settle(5, outcome="reject")
    s.dead("rejected", 5)
    s.publish("used up", most=2)
    s.deliver("used up", 6, 1)
    s.deliver("used up", 6, 2)
    s.row("used up", 6, State.DEAD, attempt=2, most=2)
    s.row("dead-letter-6-2", 7, origin="queue", address="notice.mail")
    s.deliver("dead-letter-6-2", 7, origin="queue", address="notice.mail")
    s.settle(7)
    s.publish("expired", expires_s=5.0)
    s.row("expired", 8, State.EXPIRED, attempt=0, changed_at=UNIX + 5.5)
    s.publish("tomorrow", not_before=UNIX + 86400)
    s.lines.append(ClockMoved(by="nemesis", at=s.at + 1, wall=UNIX + s.at + 1, offset_s=90000.0))
    s.lines.append(ClockMoved(by="nemesis", at=s.at + 2, wall=UNIX + s.at + 2, offset_s=-90000.0))
    s.at += 10
    s.deliver("tomorrow", 9)
    s.settle(9)
    s.row("tomorrow", 9)
    _lives_and_moves(s)
    return s


def _lives_and_moves(s: Story) -> None:
    """What an operator requeued and purged, and what consumers passed on."""
    s.publish("twice dead", key="q", most=2)
    s.publish("after it", key="q")
    s.deliver("twice dead", 11)
    s.settle(11, outcome="reject")
    s.notice(11)
    s.deliver("after it", 12)
    s.settle(12)
    s.row("after it", 12)
    s.operate("requeue", 11)
    s.deliver("twice dead", 11, 3, attempt=1)
    s.settle(11, 3, "retry")
    s.deliver("twice dead", 11, 4, attempt=2)
    s.settle(11, 4, "retry")
    s.notice(11, 4)
    s.operate("requeue", 11)
    s.deliver("twice dead", 11, 6, attempt=1)
    s.settle(11, 6)
    s.row("twice dead", 11)
    s.publish("purged when dead")
    s.deliver("purged when dead", 13)
    s.settle(13, outcome="reject")
    s.notice(13)
    s.publish("purged while it waited", "unknown")
    s.operate("purge", 13, 14)
    s.row("purged when dead", 13, State.PURGED)
    s.row("purged while it waited", 14, State.PURGED, attempt=0)
    s.publish("moved")
    s.deliver("moved", 15)
    s.deliver("moved", 15, 2)
    s.move("moved", 15, "moved too late", "stale")
    s.publish("came of it", by="c", origin="p")
    s.settle(15, 2, "move", moved="came of it")
    s.row("moved", 15, attempt=2)
    s.deliver("came of it", 16)
    s.settle(16)
    s.row("came of it", 16)

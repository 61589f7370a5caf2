"""Each invariant catches a history that breaks it, and nothing else does; a good history breaks none."""

import pytest

from appliance.queue.store import Brief, State
from tests.chaos.checker import Violation, check, summary
from tests.chaos.history import (
    Answer,
    ClockMoved,
    Delivered,
    Line,
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
        most: int = 8,
    ) -> None:  # fmt: skip
        """An attempt and its answer, if one came."""
        at, wall = self._now(at)
        self.lines.append(
            Publish(
                by=by, at=at, wall=wall, id=name, address="a", key=key, delay_s=delay_s, not_before=not_before,
                expires_s=expires_s, max_attempts=most,
            )
        )  # fmt: skip
        if answer is not None:
            self.lines.append(Published(by=by, at=at + 0.5, wall=wall + 0.5, id=name, answer=answer, began=at))

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
        *, delay_s: float = 0.0, at: float | None = None,
    ) -> None:  # fmt: skip
        """A settle and its answer, if one came."""
        at, wall = self._now(at)
        self.lines.append(
            Settle(by="c", at=at, wall=wall, seq=seq, fence=fence, outcome=outcome, delay_s=delay_s)
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
        """A dead letter and its notice, which nobody has read."""
        self.row(name, seq, State.DEAD, attempt=attempt)
        self.row(f"dead-letter-{seq}-1", 1000 + seq, State.DONE, origin="queue", address="notice.mail")
        self.deliver(f"dead-letter-{seq}-1", 1000 + seq, origin="queue", address="notice.mail")
        self.settle(1000 + seq)

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
    s.done("forgotten", 10)
    s.rows.pop()
    return s


def test_a_good_history_breaks_nothing() -> None:
    assert good().check() == []


def lost(s: Story) -> None:
    s.publish("x")


def stuck(s: Story) -> None:
    s.publish("x")
    s.row("x", 50, State.LEASED)


def made_up(s: Story) -> None:
    s.deliver("x", 50)
    s.settle(50)


def stored_from_nowhere(s: Story) -> None:
    s.row("x", 50, State.EXPIRED)


def elsewhere(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, address="b")
    s.settle(50)


def another_body(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, whole=False)
    s.settle(50)


def a_notice_from_nowhere(s: Story) -> None:
    s.deliver("dead-letter-99-1", 50, origin="queue", address="notice.mail")


def stored_twice(s: Story) -> None:
    s.done("x", 50)
    s.row("x", 51)


def delivered_as_two(s: Story) -> None:
    s.done("x", 50)
    s.deliver("x", 51)


def answered_stored_twice(s: Story) -> None:
    s.done("x", 50)
    s.publish("x", "stored")


def a_place_given_twice(s: Story) -> None:
    s.done("x", 50)
    s.publish("y", "unknown")
    s.deliver("y", 50, 2)


def elder_after_younger(s: Story) -> None:
    s.publish("x", key="k2")
    s.publish("y", key="k2")
    s.row("x", 50)
    s.row("y", 51)
    s.deliver("y", 51)
    s.deliver("x", 50)
    s.settle(50)
    s.settle(51)


def two_leases_of_a_key(s: Story) -> None:
    s.publish("x", key="k2")
    s.publish("y", key="k2")
    s.row("x", 50)
    s.row("y", 51)
    s.deliver("x", 50)
    s.deliver("y", 51)
    s.settle(51)
    s.settle(50)


def stored_out_of_order(s: Story) -> None:
    s.publish("x", key="k2")
    s.publish("y", key="k2")
    s.row("y", 50)
    s.deliver("y", 50)
    s.settle(50)
    s.row("x", 51)
    s.deliver("x", 51)
    s.settle(51)


def delay_cut_short(s: Story) -> None:
    s.done("x", 50, delay_s=1.5)


def retried_too_soon(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50, outcome="retry", delay_s=5.0)
    s.deliver("x", 50, 2)
    s.settle(50, 2)


def before_its_time(s: Story) -> None:
    s.done("x", 50, not_before=UNIX + s.at + 1000)


def expired_too_soon(s: Story) -> None:
    s.publish("x", expires_s=10.0)
    s.row("x", 50, State.EXPIRED, changed_at=UNIX + 9.0)


def expired_without_a_date(s: Story) -> None:
    s.publish("x")
    s.row("x", 50, State.EXPIRED, changed_at=UNIX + 9.0)


def one_attempt_too_many(s: Story) -> None:
    s.publish("x", most=1)
    s.deliver("x", 50, 1)
    s.deliver("x", 50, 2)
    s.settle(50, 2)


def attempts_not_counted(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, 1, attempt=1)
    s.deliver("x", 50, 2, attempt=2)
    s.deliver("x", 50, 3, attempt=1)
    s.settle(50, 3)


def too_many_on_record(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50)
    s.row("x", 50, attempt=9)


def done_and_dead(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50)
    s.dead("x", 50, attempt=8)


def ended_twice(s: Story) -> None:
    s.done("x", 50)
    s.settle(50)


def done_by_nobody(s: Story) -> None:
    s.publish("x")
    s.row("x", 50)


def purged_by_nobody(s: Story) -> None:
    s.publish("x")
    s.row("x", 50, State.PURGED, attempt=0)


def dead_for_no_reason(s: Story) -> None:
    s.publish("x")
    s.dead("x", 50, attempt=3)


def one_token_twice(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, 1)
    s.deliver("x", 50, 1)
    s.settle(50)


def done_by_a_passed_lease(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, 1)
    s.deliver("x", 50, 2)
    s.settle(50, 1)


def delivered_after_it_was_done(s: Story) -> None:
    s.done("x", 50)
    s.deliver("x", 50, 2)


def retried_by_a_passed_lease(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, 1)
    s.deliver("x", 50, 2)
    s.settle(50, 1, "retry")
    s.settle(50, 2)


def dead_in_silence(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50, outcome="reject")
    s.row("x", 50, State.DEAD)


BROKEN = {
    "lost": (lost, stuck),
    "unpublished": (made_up, stored_from_nowhere, elsewhere, another_body, a_notice_from_nowhere),
    "duplicate": (stored_twice, delivered_as_two, answered_stored_twice, a_place_given_twice),
    "order": (elder_after_younger, two_leases_of_a_key, stored_out_of_order),
    "early": (delay_cut_short, retried_too_soon, before_its_time, expired_too_soon, expired_without_a_date),
    "attempts": (one_attempt_too_many, attempts_not_counted, too_many_on_record),
    "state": (done_and_dead, ended_twice, done_by_nobody, purged_by_nobody, dead_for_no_reason),
    "fencing": (one_token_twice, done_by_a_passed_lease, delivered_after_it_was_done, retried_by_a_passed_lease),
    "notice": (dead_in_silence,),
}


@pytest.mark.parametrize(
    ("invariant", "told"),
    [(invariant, told) for invariant, stories in BROKEN.items() for told in stories],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_broken_history_breaks_the_one_invariant(invariant: str, told: object) -> None:
    assert callable(told)
    story = good()
    told(story)
    found = story.check()
    assert {violation.invariant for violation in found} == {invariant}, summary(found)

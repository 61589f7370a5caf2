"""Each invariant catches a history that breaks it, and nothing else does; a good history breaks none."""

import msgspec
import pytest

from appliance.queue.store import State
from tests.chaos.checker import summary
from tests.chaos.history import Publish
from tests.chaos.story import UNIX, Story, good


def test_a_good_history_breaks_nothing() -> None:
    assert good().check() == []


def lost(s: Story) -> None:
    s.publish("x")


def forgotten(s: Story) -> None:
    s.done("x", 50)
    s.rows.pop()


def stuck(s: Story) -> None:
    s.publish("x")
    s.row("x", 50, State.LEASED)


def stuck_and_unknown(s: Story) -> None:
    s.publish("x", "unknown")
    s.row("x", 50, State.READY, attempt=0)


def made_up(s: Story) -> None:
    s.deliver("x", 50)
    s.settle(50)


def stored_from_nowhere(s: Story) -> None:
    s.row("x", 50, State.EXPIRED)


def elsewhere(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, address="b")
    s.settle(50)
    s.row("x", 50)


def another_body(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, whole=False)
    s.settle(50)
    s.row("x", 50)


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


def stored_out_of_order_without_a_key(s: Story) -> None:
    s.publish("x")
    s.publish("y")
    s.row("y", 50, State.DONE)
    s.deliver("y", 50)
    s.settle(50)
    s.row("x", 51)
    s.deliver("x", 51)
    s.settle(51)


def in_hand_with_one_that_lives_again(s: Story) -> None:
    s.publish("x", key="k2")
    s.publish("y", key="k2")
    s.deliver("x", 50)
    s.settle(50, outcome="reject")
    s.notice(50)
    s.deliver("y", 51)
    s.operate("requeue", 50)
    s.deliver("x", 50, 3, attempt=1)
    s.settle(51)
    s.settle(50, 3)
    s.row("x", 50)
    s.row("y", 51)


def delay_cut_short(s: Story) -> None:
    s.done("x", 50, delay_s=1.5)


def retried_too_soon(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50, outcome="retry", delay_s=5.0)
    s.deliver("x", 50, 2)
    s.settle(50, 2)
    s.row("x", 50, attempt=2)


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
    s.row("x", 50, attempt=1)


def attempts_not_counted(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, 1, attempt=1)
    s.deliver("x", 50, 2, attempt=2)
    s.deliver("x", 50, 3, attempt=1)
    s.settle(50, 3)
    s.row("x", 50)


def a_failed_attempt_not_counted(s: Story) -> None:
    s.publish("x", most=2)
    s.deliver("x", 50, 1, attempt=1)
    s.settle(50, 1, "retry")
    s.deliver("x", 50, 2, attempt=1)
    s.settle(50, 2)
    s.row("x", 50)


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


def done_and_then_dead(s: Story) -> None:
    s.done("x", 50)
    s.notice(50, 2)
    s.operate("requeue", 50)


def rejected_and_expired(s: Story) -> None:
    s.publish("x", expires_s=0.0)
    s.deliver("x", 50)
    s.settle(50, outcome="reject")
    s.notice(50)
    s.row("x", 50, State.EXPIRED)


def purged_by_nobody(s: Story) -> None:
    s.publish("x")
    s.row("x", 50, State.PURGED, attempt=0)


def lives_again_by_itself(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50, outcome="reject")
    s.notice(50)
    s.deliver("x", 50, 3, attempt=1)
    s.settle(50, 3, outcome="reject")
    s.notice(50, 3)
    s.row("x", 50, State.DEAD)


def lives_again_once_too_often(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50, outcome="reject")
    s.notice(50)
    s.operate("requeue", 50)
    s.deliver("x", 50, 3, attempt=1)
    s.settle(50, 3, outcome="reject")
    s.notice(50, 3)
    s.deliver("x", 50, 5, attempt=1)
    s.settle(50, 5)
    s.row("x", 50)


def purged_and_still_there(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50, outcome="reject")
    s.dead("x", 50)
    s.operate("purge", 50)


def requeued_and_still_dead(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50, outcome="reject")
    s.dead("x", 50)
    s.operate("requeue", 50)


def moved_and_not_done(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.move("x", 50, "y", None)
    s.row("y", 51, State.EXPIRED)
    s.lines = [
        msgspec.structs.replace(line, expires_s=0.0) if isinstance(line, Publish) and line.id == "y" else line
        for line in s.lines
    ]
    s.deliver("x", 50, 2)
    s.settle(50, 2, outcome="reject")
    s.notice(50, 2)
    s.row("x", 50, State.DEAD)


def done_and_not_moved(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.move("x", 50, "y", None)
    s.row("x", 50)


def moved_twice(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.move("x", 50, "y", None)
    s.deliver("x", 50, 2)
    s.publish("z", None, by="c", origin="p")
    s.settle(50, 2, "move", answer=None, moved="z")
    s.row("x", 50, attempt=2)
    for name, seq in (("y", 51), ("z", 52)):
        s.deliver(name, seq)
        s.settle(seq)
        s.row(name, seq)


def dead_for_no_reason(s: Story) -> None:
    s.publish("x")
    s.dead("x", 50, attempt=3)


def one_token_twice(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, 1)
    s.deliver("x", 50, 1)
    s.settle(50)
    s.row("x", 50)


def done_by_a_passed_lease(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, 1)
    s.deliver("x", 50, 2)
    s.settle(50, 1)
    s.row("x", 50)


def delivered_after_it_was_done(s: Story) -> None:
    s.done("x", 50)
    s.deliver("x", 50, 2)


def retried_by_a_passed_lease(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50, 1)
    s.deliver("x", 50, 2)
    s.settle(50, 1, "retry")
    s.settle(50, 2)
    s.row("x", 50)


def rejected_and_requeued_in_silence(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50, outcome="reject")
    s.operate("requeue", 50)
    s.row("x", 50, State.PURGED)
    s.operate("purge", 50)


def dead_in_silence(s: Story) -> None:
    s.publish("x")
    s.deliver("x", 50)
    s.settle(50, outcome="reject")
    s.row("x", 50, State.DEAD)


BROKEN = {
    "lost": (lost, forgotten),
    "unpublished": (made_up, stored_from_nowhere, elsewhere, another_body, a_notice_from_nowhere),
    "duplicate": (stored_twice, delivered_as_two, answered_stored_twice, a_place_given_twice),
    "order": (
        elder_after_younger, two_leases_of_a_key, stored_out_of_order, stored_out_of_order_without_a_key,
        in_hand_with_one_that_lives_again,
    ),
    "early": (delay_cut_short, retried_too_soon, before_its_time, expired_too_soon, expired_without_a_date),
    "attempts": (one_attempt_too_many, attempts_not_counted, a_failed_attempt_not_counted, too_many_on_record),
    "state": (
        stuck, stuck_and_unknown, done_and_dead, done_and_then_dead, rejected_and_expired, ended_twice, done_by_nobody,
        purged_by_nobody, dead_for_no_reason,
    ),
    "operator": (
        lives_again_by_itself, lives_again_once_too_often, purged_and_still_there, requeued_and_still_dead,
    ),
    "moved": (moved_and_not_done, done_and_not_moved, moved_twice),
    "fencing": (one_token_twice, done_by_a_passed_lease, delivered_after_it_was_done, retried_by_a_passed_lease),
    "notice": (dead_in_silence, rejected_and_requeued_in_silence),
}  # fmt: skip


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

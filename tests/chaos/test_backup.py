"""A backup is the queue of one moment: what had been confirmed before is in it, and nothing that came later."""

from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.queue import wire
from appliance.queue.store import Brief, State
from tests.chaos.backup import Backup, judged, restored
from tests.chaos.story import Story
from tests.unit.queue.desk import Desk
from tests.unit.queue.test_restore import back_up

MADE = (10.0, 20.0)


def during() -> Story:
    """A history around a backup, with what it holds of it."""
    s = Story()
    s.publish("done before", at=1.0)
    s.deliver("done before", 1, at=2.0)
    s.settle(1, at=3.0)
    s.row("done before", 1)
    s.publish("waits", at=4.0)
    s.row("waits", 2, State.READY)
    s.publish("done meanwhile", at=5.0)
    s.deliver("done meanwhile", 3, at=6.0)
    s.settle(3, at=11.0)
    s.row("done meanwhile", 3, State.LEASED)
    s.publish("stored meanwhile", at=12.0)
    s.row("stored meanwhile", 4, State.READY)
    s.publish("later", at=21.0)
    return s


def found(s: Story) -> list[str]:
    backup = Backup(*MADE, [], s.rows)
    return [violation.text for violation in judged(sorted(s.lines, key=lambda line: line.at), backup)]


def test_a_backup_of_one_moment_contradicts_nothing() -> None:
    assert found(during()) == []


def a_hole(s: Story) -> None:
    del s.rows[1]


def from_the_future(s: Story) -> None:
    s.row("later", 5, State.READY)


def from_nowhere(s: Story) -> None:
    s.row("x", 5, State.READY)


def an_end_forgotten(s: Story) -> None:
    s.rows[0] = Brief(1, "p", "done before", "a", State.READY, 1, 8, 1, 0.0, 0.0, "", "")


def an_end_foreseen(s: Story) -> None:
    s.row("waits too", 6)
    s.publish("waits too", at=7.0)
    s.deliver("waits too", 6, at=8.0)
    s.settle(6, at=25.0)


@pytest.mark.parametrize("told", [a_hole, from_the_future, from_nowhere, an_end_forgotten, an_end_foreseen])
def test_a_backup_of_no_moment_is_found_out(told: Callable[[Story], None]) -> None:
    s = during()
    told(s)
    assert len(found(s)) == 1


def test_a_backup_is_judged_by_what_a_restore_makes_of_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hello("alice")
    desk.publish("alice", wire.Item("a", "1"))
    back_up(desk)
    desk.publish("alice", wire.Item("a", "2"))
    backup = restored(tmp_path / "restore.sqlite", *MADE)
    assert ([row.id for row in backup.rows], backup.problems) == (["1"], [])
    assert (backup.began, backup.ended) == MADE


def test_a_backup_that_is_damaged_is_not_taken_for_a_queue(tmp_path: Path) -> None:
    (tmp_path / "backup.sqlite").write_bytes(b"not a database" * 1000)
    backup = restored(tmp_path / "backup.sqlite", *MADE)
    assert (backup.rows, backup.problems) == ([], ["It was refused."])
    assert [violation.invariant for violation in judged([], backup)] == ["backup"]

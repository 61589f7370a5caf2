"""A change on trial: kept, undone, and what becomes of it when the supervisor or the machine dies."""

import asyncio
import errno
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from appliance.config import InvalidConfig
from appliance.supervisor.inforce import ConfigFile
from appliance.supervisor.trial import ChangePending, NothingPending, OtherChange, Probation, Undone

T = TypeVar("T")

BEFORE = '[machine]\nname = "before"\n'
AFTER = '[machine]\nname = "after"\n'
TOUCHED = ("nic ardpx/uplink changes (addresses)",)
WITHIN_S = 60.0


class Computer:
    """The disk of a machine, its clock and the id of its boot."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self.folder = folder
        self._runner = runner
        self.now = 1000.0
        self.boot = "first"
        ConfigFile(folder).write(BEFORE)

    def probation(self) -> Probation:
        """What a supervisor that starts now has."""
        probation = Probation(
            self.folder, ConfigFile(self.folder), boot_id=lambda: self.boot, monotonic=lambda: self.now
        )
        probation.take_over()
        return probation

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it, on the one event loop."""
        return self._runner.run(work)

    @property
    def name(self) -> str:
        """The name in the configuration that the next round would put in force."""
        return self.probation().read().config.machine.name


    def put(self, probation: Probation, text: str = AFTER, touched: tuple[str, ...] = TOUCHED) -> None:
        """Put a change in force, on trial where it touches something."""
        self.run(probation.put(text, touched, WITHIN_S))

    def undoes(self, probation: Probation) -> bool:
        """Let it watch, and return whether it undoes the change now or waits on."""

        async def main() -> bool:
            undone = asyncio.Event()
            task = asyncio.create_task(probation.watch(undone.set))
            waits = probation.pending is None or probation.pending.seconds_left > 0
            if waits:
                for _ in range(10):
                    await asyncio.sleep(0)
            else:
                async with asyncio.timeout(10):
                    await undone.wait()
            task.cancel()
            await asyncio.wait([task])
            return undone.is_set()

        return self.run(main())


@pytest.fixture
def computer(tmp_path: Path) -> Iterator[Computer]:
    """A machine that was configured once."""
    with asyncio.Runner() as runner:
        yield Computer(tmp_path, runner)


def test_a_change_that_touches_nothing_is_simply_there(computer: Computer) -> None:
    probation = computer.probation()
    computer.put(probation, AFTER, ())
    assert (probation.pending, computer.name) == (None, "after")


def test_a_change_on_trial_is_in_force_and_says_how_long(computer: Computer) -> None:
    probation = computer.probation()
    computer.put(probation)
    computer.now += 15
    assert computer.name == "after"
    assert probation.pending is not None
    assert (probation.pending.touched, probation.pending.seconds_left) == (TOUCHED, WITHIN_S - 15)


def test_it_is_undone_when_its_time_is_up_and_not_before(computer: Computer) -> None:
    probation = computer.probation()
    computer.put(probation)
    computer.now += WITHIN_S - 1
    assert not computer.undoes(probation)
    assert computer.name == "after"
    computer.now += 1
    assert computer.undoes(probation)
    assert (probation.pending, computer.name) == (None, "before")
    assert probation.undone is not None
    assert probation.undone.code == "change-undone"


def test_the_time_is_counted_from_when_all_of_it_is_in_force(computer: Computer) -> None:
    probation = computer.probation()
    computer.put(probation)
    computer.now += 20
    computer.run(probation.count_from_now(WITHIN_S))
    computer.now += WITHIN_S - 1
    assert not computer.undoes(probation)
    assert computer.probation().pending == probation.pending


def test_one_that_was_confirmed_stays(computer: Computer) -> None:
    probation = computer.probation()
    computer.put(probation)
    computer.run(probation.confirm("", "root"))
    assert probation.ended is not None
    assert (probation.ended.kept, probation.ended.said) == (True, "The last change was kept by root.")
    computer.now += WITHIN_S
    assert not computer.undoes(probation)
    computer.boot = "second"
    assert computer.name == "after"


def test_another_change_than_the_one_that_was_seen_is_neither_confirmed_nor_undone(computer: Computer) -> None:
    probation = computer.probation()
    computer.put(probation)
    for act in (probation.confirm, probation.revert):
        with pytest.raises(OtherChange):
            computer.run(act("0" * 64, "admin"))
    assert probation.pending is not None
    computer.run(probation.confirm(probation.pending.digest, "admin"))
    with pytest.raises(NothingPending):
        computer.run(probation.confirm("", "root"))


def test_a_confirmation_that_comes_too_late_keeps_nothing(computer: Computer) -> None:
    probation = computer.probation()
    computer.put(probation)
    assert probation.pending is not None
    seen = probation.pending.digest
    computer.now += WITHIN_S
    for late in ("", seen):
        with pytest.raises(Undone, match="not confirmed in time"):
            computer.run(probation.confirm(late, "root"))
    assert computer.undoes(probation)
    assert computer.name == "before"
    with pytest.raises(Undone, match="not confirmed in time"):
        computer.run(probation.confirm(seen, "root"))
    with pytest.raises(NothingPending):
        computer.run(probation.confirm("", "root"))


def test_it_can_be_undone_before_its_time(computer: Computer) -> None:
    probation = computer.probation()
    computer.put(probation)
    computer.run(probation.revert("", "root"))
    assert (probation.pending, probation.undone, computer.name) == (None, None, "before")
    assert probation.ended is not None
    assert (probation.ended.kept, probation.ended.said) == (
        False,
        "The last change was undone, because root said so.",
    )
    with pytest.raises(NothingPending):
        computer.run(probation.revert("", "root"))
    computer.put(probation)
    assert probation.ended is None


@pytest.mark.parametrize("touched", [TOUCHED, ()])
def test_while_one_is_pending_there_is_no_other(computer: Computer, touched: tuple[str, ...]) -> None:
    probation = computer.probation()
    computer.put(probation)
    with pytest.raises(ChangePending, match="60 seconds") as refused:
        computer.put(probation, BEFORE, touched)
    assert "alpha-ren confirm" in refused.value.problem.hint
    assert computer.name == "after"


def test_the_time_goes_on_while_the_supervisor_is_dead(computer: Computer) -> None:
    computer.put(computer.probation())
    computer.now += 40
    again = computer.probation()
    assert again.pending is not None
    assert again.pending.seconds_left == WITHIN_S - 40
    computer.now += 20
    assert computer.name == "before"


def test_after_a_reboot_it_is_undone_at_once(computer: Computer) -> None:
    computer.put(computer.probation())
    computer.boot, computer.now = "second", 3.0
    probation = computer.probation()
    assert (probation.pending, computer.name) == (None, "before")
    assert probation.undone is not None
    assert "restarted" in probation.undone.message


def test_where_there_was_no_file_there_is_none_again(computer: Computer) -> None:
    (computer.folder / "config.toml").unlink()
    computer.put(computer.probation())
    computer.boot = "second"
    assert computer.probation().read().source == "default"


def test_undoing_takes_no_room_on_a_disk_that_is_full(computer: Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    computer.probation().read()
    probation = computer.probation()
    computer.put(probation)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    monkeypatch.setattr("os.fdopen", full)
    computer.now += WITHIN_S
    assert computer.undoes(probation)
    assert computer.name == "before"


def test_what_was_only_on_trial_is_never_the_last_good_one(computer: Computer) -> None:
    computer.probation().read()
    (computer.folder / "config.toml").write_bytes(b"\xff nonsense")
    probation = computer.probation()
    computer.put(probation)
    assert probation.read().config.machine.name == "after"
    computer.run(probation.revert("", "root"))
    found = probation.read()
    assert (found.source, found.config.machine.name) == ("last-good", "before")


def test_one_that_does_not_validate_is_not_put_on_trial(computer: Computer) -> None:
    probation = computer.probation()
    with pytest.raises(InvalidConfig):
        computer.put(probation, "version = 99\n")
    assert (probation.pending, computer.name) == (None, "before")
    assert computer.probation().pending is None


def test_a_configuration_that_took_its_place_stays(computer: Computer) -> None:
    computer.put(computer.probation())
    ConfigFile(computer.folder).write('[machine]\nname = "seed"\n')
    computer.boot = "second"
    assert (computer.probation().pending, computer.name) == (None, "seed")


@pytest.mark.parametrize("boot", ["first", "second"])
def test_a_power_cut_before_the_change_or_in_the_midst_of_undoing_it_leaves_the_old_one(
    computer: Computer, boot: str
) -> None:
    """Both leave the note of the trial beside the old configuration."""
    computer.put(computer.probation())
    (computer.folder / "config.before.toml").rename(computer.folder / "config.toml")
    computer.boot = boot
    probation = computer.probation()
    assert (probation.pending, probation.undone, computer.name) == (None, None, "before")
    computer.put(probation)
    assert computer.name == "after"

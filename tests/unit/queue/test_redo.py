"""The redo log: what was appended comes back, whatever a crash, a full disk or another file leaves of it."""

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.queue import redo
from appliance.queue.errors import StoreDamaged, StoreFailed, StoreFull
from appliance.queue.redo import BEGIN, RECORD, RedoLog, files

FILE_BYTES = 1000


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redo, "FILE_BYTES", FILE_BYTES)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "q"


@contextlib.contextmanager
def opened(store: Path) -> Iterator[RedoLog]:
    log = RedoLog(store, lay_out=True)
    try:
        yield log
    finally:
        log.close()


def append(store: Path, turns: range, content: bytes = b"x" * 80) -> None:
    """Append these turns, and say of each that the store has it."""
    with opened(store) as log:
        for turn in turns:
            log.append(turn, content + b"%d" % turn)
            log.secured(turn)


def found(store: Path, after: int = 0) -> list[int]:
    with opened(store) as log:
        return [turn for turn, _ in log.after(after)]


def newest(store: Path) -> Path:
    """Return the file that the last turn is in."""
    return max(files(store), key=first_turn)


def first_turn(file: Path) -> int:
    """Return the turn that a file begins with."""
    return int.from_bytes(file.read_bytes()[BEGIN.size :][:8], "little")


def test_what_was_appended_is_there_at_the_next_start_and_can_be_added_to(store: Path) -> None:
    append(store, range(1, 3))
    with opened(store) as log:
        assert log.after(0) == [(1, b"x" * 80 + b"1"), (2, b"x" * 80 + b"2")]
        log.append(3, b"three")
    assert found(store) == [1, 2, 3]
    assert found(store, 2) == [3]
    assert found(store, 3) == []


def test_a_file_is_begun_anew_once_the_store_has_what_is_in_it_and_neither_grows(store: Path) -> None:
    append(store, range(1, 200))
    assert {file.stat().st_size for file in files(store)} == {FILE_BYTES}
    last = found(store, 195)
    assert last == [196, 197, 198, 199]


def test_a_turn_that_the_store_has_not_is_not_written_over(store: Path) -> None:
    crowded = []
    with opened(store) as log:
        for turn in range(1, 31):
            log.append(turn, bytes(90))
        crowded.append(log.crowded)
        log.secured(20)
        crowded.append(log.crowded)
    assert crowded == [True, False]
    assert found(store) == list(range(1, 31))


def test_a_large_turn_makes_its_file_long_until_it_is_begun_anew(store: Path) -> None:
    append(store, range(1, 2), bytes(5 * FILE_BYTES))
    assert found(store) == [1]
    append(store, range(2, 40))
    assert {file.stat().st_size for file in files(store)} == {FILE_BYTES}
    assert found(store, 38) == [39]


@pytest.mark.parametrize("cut", [1, 40, 82, 90, 97])
def test_a_turn_that_was_not_written_in_full_never_was(store: Path, cut: int) -> None:
    append(store, range(1, 4))
    file = newest(store)
    content = bytearray(file.read_bytes())
    end = BEGIN.size + 3 * (RECORD + 81)
    content[end - cut : end] = bytes(cut)
    file.write_bytes(content)
    assert found(store) == [1, 2]
    append(store, range(3, 5))
    assert found(store) == [1, 2, 3, 4]


@pytest.mark.parametrize("at", [RECORD, RECORD + 40, RECORD - 1])
def test_a_turn_that_is_lost_from_among_others_is_damage(store: Path, at: int) -> None:
    append(store, range(1, 4))
    file = newest(store)
    content = bytearray(file.read_bytes())
    content[BEGIN.size + (RECORD + 81) + at] ^= 0x40
    file.write_bytes(content)
    with opened(store) as log:
        with pytest.raises(StoreDamaged, match="turn 2") as caught:
            log.after(1)
        assert "backup" in caught.value.hint
        assert log.after(2) == [], "the store has it, and what comes after it was never told"


def test_turns_that_neither_the_store_nor_the_log_has_are_damage(store: Path) -> None:
    append(store, range(5, 8))
    with opened(store) as log, pytest.raises(StoreDamaged, match="from turn 3"):
        log.after(3)
    assert found(store, 4) == [5, 6, 7]
    assert found(store, 100) == []


def test_a_file_that_is_lost_is_noticed(store: Path) -> None:
    append(store, range(1, 21))
    (older,) = (file for file in files(store) if file != newest(store))
    first = first_turn(newest(store))
    older.unlink()
    with opened(store) as log, pytest.raises(StoreDamaged):
        log.after(first - 2)
    assert found(store, first - 1) == list(range(first, 21))


def test_what_was_in_a_file_before_is_never_taken_for_a_turn(store: Path) -> None:
    """A body is chosen by who publishes it, and may look like the next turn, at the very place where that would be."""
    size = 80
    with opened(store) as log:
        log.append(1, bytes(size))
    old = newest(store).read_bytes()
    salt = old[BEGIN.size - 8 : BEGIN.size]
    head = redo.HEAD.pack(12, 6)
    forged = head + redo._check(salt, head, b"forged") + b"forged"
    with opened(store) as log:
        for turn in range(2, 12):
            place = log._files[1].end
            log.append(turn, bytes(size - len(forged)) + forged)
            log.secured(turn)
    assert place
    for file in files(store):
        assert file.read_bytes().count(forged)
    content = bytearray(newest(store).read_bytes())
    end = BEGIN.size + sum(RECORD + size for turn in found(store, 9) if turn)
    content[end : end + len(forged)] = forged
    newest(store).write_bytes(content)
    assert max(found(store, 9)) == 11


@pytest.mark.parametrize("block", [16, 48, 100])
def test_a_file_that_was_being_begun_anew_at_the_cut_is_no_damage(store: Path, block: int) -> None:
    """What was in it is in the store; the new turn was written in part, and of its blocks any may be there."""
    append(store, range(1, 19))
    (file,) = (each for each in files(store) if each != newest(store))
    old = file.read_bytes()
    with opened(store) as log:
        last = log.after(0)[-1][0]
        log.secured(last)
        for turn in range(last + 1, last + 30):
            log.append(turn, bytes(300))
            if newest(store) == file:
                break
    new = file.read_bytes()
    blocks = range(0, BEGIN.size + RECORD + 300, block)
    for lost in range(1, 2 ** min(len(blocks), 6)):
        content = bytearray(new)
        for number, at in enumerate(blocks):
            if lost >> number & 1:
                content[at : at + block] = old[at : at + block]
        file.write_bytes(content)
        assert turn not in found(store, turn - 1)


def test_a_log_that_has_no_room_to_grow_goes_on_in_the_file_that_has(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def narrow(descriptor: int, data: bytes, at: int) -> int:
        if at + len(data) > max(os.fstat(descriptor).st_size, FILE_BYTES // 2):
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data, at)

    log = RedoLog(store)
    with monkeypatch.context() as patch, contextlib.closing(log):
        patch.setattr(os, "pwrite", narrow)
        for turn in range(1, 50):
            log.append(turn, bytes(80))
            log.secured(turn)
        for turn in itertools.count(50):
            try:
                log.append(turn, bytes(80))
            except StoreFull:
                break
    assert 50 < turn < 70
    assert found(store, 49) == list(range(50, turn))


def test_a_file_of_another_firmware_is_left_alone(store: Path) -> None:
    content = b"ARREDO9\n" + bytes(500)
    files(store)[1].write_bytes(content)
    with pytest.raises(StoreFailed, match="not of this firmware"):
        RedoLog(store)
    assert files(store)[1].read_bytes() == content


def test_a_disk_that_is_full_is_told_and_the_turn_can_be_tried_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def half(descriptor: int, data: bytes, at: int) -> int:
        """Write half of it, and the next time nothing."""
        monkeypatch.setattr(os, "pwrite", full)
        return write(descriptor, data[: len(data) // 2], at)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with opened(store) as log:
        log.append(1, b"one")
        monkeypatch.setattr(os, "pwrite", half)
        with pytest.raises(StoreFull):
            log.append(2, b"two")
        monkeypatch.setattr(os, "pwrite", write)
        log.append(2, b"two again")
    with opened(store) as log:
        assert log.after(0) == [(1, b"one"), (2, b"two again")]


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_an_error_of_the_disk_ends_the_log(store: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    with opened(store) as log:
        monkeypatch.setattr(os, call, broken)
        with pytest.raises(StoreFailed, match="redo"):
            log.append(1, b"one")


def test_a_turn_is_synced_before_the_append_returns(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fdatasync
    synced: list[int] = []

    def watched(descriptor: int) -> None:
        sync(descriptor)
        synced.append(descriptor)

    monkeypatch.setattr(os, "fdatasync", watched)
    with opened(store) as log:
        for turn in range(1, 4):
            log.append(turn, b"x")
            assert len(synced) == turn

"""The redo log: what was appended comes back, whatever a crash, a full disk or another file leaves of it."""

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.queue import redo
from appliance.queue.errors import LogDamaged, StoreFailed, StoreFull
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
    return int.from_bytes(file.read_bytes()[BEGIN.size + 8 :][:8], "little")


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


def test_a_large_turn_gives_its_room_back_as_soon_as_the_store_has_it(store: Path) -> None:
    with opened(store) as log:
        for turn in (1, 2):
            log.append(turn, bytes(5 * FILE_BYTES))
    with opened(store) as log:
        assert [turn for turn, _ in log.after(0)] == [1, 2]
        filling = [log.filling]
        for turn in (1, 2):
            log.secured(turn)
            filling.append(log.filling)
        assert filling == [True, True, False], "for so long somebody sees to it"
        assert {file.stat().st_size for file in files(store)} == {FILE_BYTES}
        log.append(3, b"x")
    assert found(store, 2) == [3]


def test_a_turn_that_has_no_room_takes_none(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def narrow(descriptor: int, data: bytes, at: int) -> int:
        if at >= 3 * FILE_BYTES:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data[: 3 * FILE_BYTES - at], at)

    with opened(store) as log:
        log.append(1, b"x")
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", narrow)
            with pytest.raises(StoreFull):
                log.append(2, bytes(5 * FILE_BYTES))
        assert {file.stat().st_size for file in files(store)} == {FILE_BYTES}
        log.append(2, b"y")
    assert found(store) == [1, 2]


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


HARMED = [(0, 1), (9, 1), (RECORD - 1, 1), (RECORD, 1), (RECORD + 40, 1), (9, 300), (RECORD, 300)]
"""From where in a record on, and for how many bytes."""


@pytest.mark.parametrize(("at", "length"), HARMED)
def test_turns_that_are_lost_from_among_others_are_damage_unless_the_store_has_them(
    store: Path, at: int, length: int
) -> None:
    append(store, range(1, 8))
    file = newest(store)
    content = bytearray(file.read_bytes())
    begin = BEGIN.size + (RECORD + 81) + at
    content[begin : begin + length] = bytes(byte ^ 0x40 for byte in content[begin : begin + length])
    file.write_bytes(content)
    lost = 2 + (at + length - 1) // (RECORD + 81)
    with opened(store) as log:
        with pytest.raises(LogDamaged, match="from turn 1") as caught:
            log.after(1)
        assert "backup" in caught.value.hint
    assert found(store, lost) == list(range(lost + 1, 8))
    append(store, range(8, 9))
    assert found(store, lost) == list(range(lost + 1, 9))


@pytest.mark.parametrize("at", range(BEGIN.size))
def test_damage_to_the_beginning_of_a_file_loses_nothing_unsaid(store: Path, at: int) -> None:
    append(store, range(1, 4))
    file = newest(store)
    content = bytearray(file.read_bytes())
    content[at] ^= 0x40
    file.write_bytes(content)
    if at < len(redo.MAGIC):
        with pytest.raises(StoreFailed, match="not of this firmware"):
            found(store)
    else:
        assert found(store) == [1, 2, 3]


def test_turns_that_neither_the_store_nor_the_log_has_are_damage(store: Path) -> None:
    append(store, range(5, 8))
    with opened(store) as log, pytest.raises(LogDamaged, match="from turn 3"):
        log.after(3)
    assert found(store, 4) == [5, 6, 7]
    assert found(store, 100) == []


def test_a_file_that_is_lost_is_noticed(store: Path) -> None:
    append(store, range(1, 21))
    (older,) = (file for file in files(store) if file != newest(store))
    first = first_turn(newest(store))
    older.unlink()
    with opened(store) as log, pytest.raises(LogDamaged):
        log.after(first - 2)
    assert found(store, first - 1) == list(range(first, 21))


@pytest.mark.parametrize("known", [False, True], ids=["the salt of before", "its own salt"])
def test_what_was_in_a_file_before_is_never_taken_for_a_turn(store: Path, known: bool) -> None:
    """A body is chosen by who publishes it, and may look like the next turn, at the very place where that would be."""
    size = 80
    append(store, range(1, 2), bytes(size - 1))
    file = newest(store)
    before = file.read_bytes()
    turn = 1
    with opened(store) as log:
        while first_turn(file) == 1:  # until it is begun anew, and has one turn
            turn += 1
            log.append(turn, bytes(size))
            log.secured(turn)
    content = bytearray(file.read_bytes())
    _, salt = BEGIN.unpack_from(content if known else before)
    head = redo.HEAD.pack(salt, turn + 1, 6)
    forged = head + redo._check(head, b"forged") + b"forged"
    end = BEGIN.size + RECORD + size
    content[end : end + len(forged)] = forged
    file.write_bytes(content)
    assert found(store, turn - 1) == ([turn, turn + 1] if known else [turn])


@pytest.mark.parametrize("block", [24, 48, 100])
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

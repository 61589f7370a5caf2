"""The guest's journal: what becomes of an entry, and of what is none."""

import json
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.host.guestjournal import MOST_BYTES, MOST_TEXT, STARTED, Entry, Journal, Lines, datagram, entry, is_told


def line(**fields: object) -> bytes:
    """An entry as journalctl writes it."""
    return json.dumps(fields).encode()


def read(**fields: object) -> Entry:
    """The entry in a line."""
    found = entry(line(**fields))
    assert found is not None
    return found


def test_an_entry_is_read_and_what_else_is_in_it_is_passed_over() -> None:
    found = read(
        MESSAGE="takes messages", PRIORITY="4", SYSLOG_IDENTIFIER="alpha-ren-srv-1", MESSAGE_ID=STARTED,
        UNIT="alpha-ren-srv-1.service", _TRANSPORT="stdout", __MONOTONIC_TIMESTAMP="2500000", _PID="7", X=["a", "b"],
    )  # fmt: skip
    assert (found.text, found.level, found.message_id, found.at_s) == ("takes messages", 4, STARTED, 2.5)


def test_text_that_is_not_utf8_comes_as_bytes() -> None:
    assert read(MESSAGE=[104, 105, 255]).text == "hi�"
    assert read(MESSAGE=None).text == ""


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b'{"MESSAGE": 7}', b"\xff\xfe", b'{"PRIORITY": {}}'])
def test_what_is_no_entry_is_dropped(text: bytes) -> None:
    assert entry(text) is None


@pytest.mark.parametrize("priority", ["", "9", "-1", "66", "x", "٣"])
def test_a_priority_that_is_none_is_an_ordinary_one(priority: str) -> None:
    assert read(MESSAGE="x", PRIORITY=priority).level == 6


def test_of_the_kernel_only_warnings_and_worse_are_told() -> None:
    assert is_told(read(MESSAGE="oops", PRIORITY="3", _TRANSPORT="kernel"))
    assert not is_told(read(MESSAGE="hello", PRIORITY="6", _TRANSPORT="kernel"))
    assert is_told(read(MESSAGE="hello", PRIORITY="6", _TRANSPORT="stdout"))
    assert not is_told(read(PRIORITY="3"))


def test_lines_are_put_together_whatever_pieces_they_come_in() -> None:
    data = b"".join(line(MESSAGE=f"line {number}") + b"\n" for number in range(50))
    for size in (1, 7, 1000):
        lines = Lines()
        got = [each for start in range(0, len(data), size) for each in lines.feed(data[start : start + size])]
        assert [json.loads(each)["MESSAGE"] for each in got] == [f"line {number}" for number in range(50)]


def test_a_line_that_does_not_end_is_forgotten_and_the_next_one_is_heard() -> None:
    lines = Lines()
    for _ in range(20):
        assert list(lines.feed(b"x" * MOST_BYTES)) == []
        assert len(lines._rest) <= 2 * MOST_BYTES
    assert list(lines.feed(b"end\nnext\n")) == [b"next"]


@given(st.lists(st.binary(max_size=300)))
def test_whatever_a_guest_writes_is_an_entry_or_nothing(pieces: list[bytes]) -> None:
    lines = Lines()
    for piece in pieces:
        for each in lines.feed(piece):
            found = entry(each)
            assert found is None or isinstance(datagram(found, "srv-1"), bytes)


def test_an_entry_reaches_the_journal_with_nothing_that_a_guest_could_forge(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(path)
        journal = Journal("srv-1", path)
        said = "one\n_SYSTEMD_UNIT=alpha-ren-supervisor.service\nPRIORITY=0"
        assert journal.write(read(MESSAGE=said, PRIORITY="5", SYSLOG_IDENTIFIER="x\nPRIORITY=0"))
        got = journald.recv(65536)
        journal.close()
    head, _, rest = got.partition(b"MESSAGE\n")
    assert head.decode().splitlines() == ["PRIORITY=5", "SYSLOG_IDENTIFIER=srv-1/unknown", "ALPHA_REN_GUEST=srv-1"]
    assert rest == len(said).to_bytes(8, "little") + said.encode() + b"\n"


def test_a_journal_that_is_away_holds_nobody_up(tmp_path: Path) -> None:
    journal = Journal("srv-1", str(tmp_path / "nothing"))
    assert not journal.write(read(MESSAGE="x"))
    journal.close()


def test_a_message_is_cut_before_it_fills_the_journal() -> None:
    assert len(read(MESSAGE="x" * (MOST_TEXT + 5)).text) == MOST_TEXT

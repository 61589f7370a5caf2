"""What the actors of a run did and were told, each in a file of its own, written before it is done.

One JSON object a line, one write(2) a line: a killed actor leaves at most its last line torn. `at` is CLOCK_MONOTONIC,
which all processes of the machine share and no fault moves; `wall` is the machine's own Unix time, not the broker's.
"""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

Answer = Literal["stored", "duplicate", "busy", "unknown"]
Outcome = Literal["done", "retry", "reject", "move"]
Settlement = Literal["ok", "stale", "unknown", "busy"]
Act = Literal["requeue", "purge"]
Name = tuple[str, str]
"""(origin, id): what names a message."""


class Record(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Who did it, and when by both clocks."""

    by: str
    at: float
    wall: float


class Publish(Record, frozen=True):
    """Somebody is about to publish; each attempt has a line of its own, with the same id and the same wishes.

    `origin` is in whose name, where that is not his own: a message that is moved keeps the name of the first.
    """

    id: str
    address: str
    origin: str = ""
    key: str | None = None
    delay_s: float = 0.0
    not_before: float | None = None
    expires_s: float | None = None
    max_attempts: int = 8

    @property
    def name(self) -> Name:
        """What the message is called at the broker that takes it in."""
        return self.origin or self.by, self.id


class Published(Record, frozen=True):
    """What came of the attempt that began at `began`."""

    id: str
    answer: Answer
    began: float
    origin: str = ""

    @property
    def name(self) -> Name:
        """See Publish."""
        return self.origin or self.by, self.id


class Delivered(Record, frozen=True):
    """A consumer has a message in hand; `whole` says whether its body is the one that belongs to its id."""

    seq: int
    fence: int
    id: str
    origin: str
    address: str
    attempt: int
    whole: bool = True


class Settle(Record, frozen=True):
    """A consumer is about to end a lease; `moved` is the message that comes of a move."""

    seq: int
    fence: int
    outcome: Outcome
    delay_s: float = 0.0
    moved: Name | None = None


class Settled(Record, frozen=True):
    """What came of the settle that began at `began`."""

    seq: int
    fence: int
    outcome: Outcome
    answer: Settlement
    began: float
    delay_s: float = 0.0


class ClockMoved(Record, frozen=True):
    """The broker's wall clock is about to be this far ahead of the machine's."""

    offset_s: float


class Operate(Record, frozen=True):
    """An operator is about to do this to the messages with these numbers, as far as he still can."""

    act: Act
    seqs: tuple[int, ...]


class Operated(Record, frozen=True):
    """He was told that it was done to every one of them."""

    act: Act
    seqs: tuple[int, ...]


class Fault(Record, frozen=True):
    """The nemesis did something, or saw `count` of what came of it."""

    what: str
    count: int = 1


Line = Publish | Published | Delivered | Settle | Settled | ClockMoved | Operate | Operated | Fault


class Recorder:
    """Appends to one actor's file."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        path = directory / f"{name}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if os.fstat(self._file).st_size:
            os.write(self._file, b"\n")  # an earlier life may have been killed within a line

    def write(self, line: Line) -> None:
        """Put a line on record before returning."""
        os.write(self._file, msgspec.json.encode(line) + b"\n")


def now() -> tuple[float, float]:
    """Return both clocks."""
    return time.monotonic(), time.time()


def read(directory: Path) -> list[Line]:
    """Return the whole history, oldest first."""
    lines = (line for path in sorted(directory.glob("*.jsonl")) for line in _lines(path))
    return sorted(lines, key=lambda line: line.at)


def _lines(path: Path) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(Line)
    for text in path.read_bytes().split(b"\n"):
        if text.endswith(b"}"):
            yield decoder.decode(text)


def tally(history: Iterable[Line]) -> dict[str, int]:
    """Return how often the actors did each thing, answers apart."""
    counts: dict[str, int] = {}
    for line in history:
        answer = f" {line.answer}" if isinstance(line, Published | Settled) else ""
        if isinstance(line, Delivered) and "/" in line.origin:
            answer = " from another cluster"
        if isinstance(line, Operated):
            answer = f" {line.act}"
        what = f"{line.outcome}{answer}" if isinstance(line, Settled) else type(line).__name__.lower() + answer
        if not isinstance(line, Fault):
            counts[what] = counts.get(what, 0) + (len(line.seqs) if isinstance(line, Operated) else 1)
    return dict(sorted(counts.items()))


def faults(history: Iterable[Line]) -> dict[str, int]:
    """Return how often each fault happened, and what was seen of it."""
    counts: dict[str, int] = {}
    for line in history:
        if isinstance(line, Fault):
            counts[line.what] = counts.get(line.what, 0) + line.count
    return dict(sorted(counts.items()))

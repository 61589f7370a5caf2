"""A backup that was made while the queue went on, restored beside it, and judged: it holds the queue of one moment."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from appliance.queue import restore
from appliance.queue.logged_store import open_store
from appliance.queue.store import Brief, State, Store
from tests.chaos.checker import BROKER, Evidence, Violation
from tests.chaos.history import Line
from tests.chaos.layer import RUN

PAGE = 1000


class Backup(msgspec.Struct, frozen=True):
    """What came of its restore; its moment is between `began` and `ended`, `problems` are what the check found."""

    began: float
    ended: float
    problems: list[str]
    rows: list[Brief]


def holdings(store: Store) -> list[Brief]:
    """Return all that a store holds."""
    return [brief for state in State for pattern in ("*", "*/*/*") for brief in _all(store, pattern, state)]


def _all(store: Store, pattern: str, state: State) -> Iterator[Brief]:
    last = 0
    while page := store.browse(pattern, state, last, PAGE):
        yield from page
        last = page[-1].seq


def inspected(path: Path) -> tuple[list[str], list[Brief]]:
    """Return what is wrong with a store that nobody has open, and all that it holds."""
    store = open_store(path)
    try:
        still = store.still()
        try:
            problems = still.check()
        finally:
            still.close()
        return problems, holdings(store)
    finally:
        store.close()


def restored(file: Path, began: float, ended: float) -> Backup:
    """Let a copy of the backup take the place of a store, as at a broker's start."""
    with tempfile.TemporaryDirectory(prefix=RUN) as directory:
        (Path(directory) / restore.RESTORE).write_bytes(file.read_bytes())
        store = restore.take_up(Path(directory))
        if not store.exists():
            return Backup(began, ended, ["It was refused."], [])
        return Backup(began, ended, *inspected(store))


def judged(history: Sequence[Line], backup: Backup) -> list[Violation]:
    """Return what contradicts the history: what had been confirmed before is there, and nothing that came later."""
    evidence = Evidence(history, backup.rows)
    return [Violation("backup", text) for text in (*backup.problems, *_contradictions(evidence, backup))]


def _contradictions(e: Evidence, backup: Backup) -> Iterator[str]:
    for name in e.answers:
        acknowledged = e.acknowledged(name)
        here = "/" not in name[0]  # what another cluster has acknowledged comes in its time
        if here and acknowledged is not None and acknowledged <= backup.began and not e.rows[name]:
            yield f"{name} was acknowledged before and is not in it"
    for name, rows in e.rows.items():
        if name[0] != BROKER and not any(attempt.at <= backup.ended for attempt in e.attempts[name]):
            yield f"{name} is in it and was not published yet"
        before = {s.outcome for s in e.accepted(name) if s.at <= backup.began and s.outcome != "retry"}
        said = {s.outcome for s in e.settles[name] if s.at <= backup.ended}
        for row in rows:
            if before & {"done", "move"} and row.state != State.DONE:
                yield f"{name} had been done and is {row.state.name} in it"
            if row.state == State.DONE and not said & {"done", "move"} and "/" not in row.address:
                yield f"{name} is done in it and nobody had said so yet"

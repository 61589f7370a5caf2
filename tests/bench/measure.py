"""One measured number, as it is written to build/bench/NAME.json and printed in the table."""

from pathlib import Path
from typing import Literal

import msgspec

RESULTS = Path(__file__).resolve().parents[2] / "build/bench"


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; `details` are the parts that `ours` is made of, in the same unit.

    `ratio` is ours divided by the peer's. Where there is no peer or no target, the field is null; `peer_name` then says
    why a peer is missing. `beside` was counted along with it, each with its unit in its name; `how` says what both
    sides were and did.
    """

    measure: str
    unit: str
    ours: float
    better: Literal["higher", "lower"]
    peer_name: str | None = None
    peer: float | None = None
    target: float | None = None
    details: dict[str, float] = {}
    beside: dict[str, float] = {}
    how: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's."""
        return round(self.ours / self.peer, 3) if self.peer else None

    @property
    def verdict(self) -> str:
        """Whether the target is met, in a word."""
        if self.target is None:
            return ""
        met = self.ours >= self.target if self.better == "higher" else self.ours <= self.target
        return "met" if met else "missed"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A measure with where and on what it was taken: the file's form."""

    measure: str
    unit: str
    ours: float
    peer_name: str | None
    peer: float | None
    ratio: float | None
    target: float | None
    better: Literal["higher", "lower"]
    machine: str
    commit: str
    details: dict[str, float] = {}
    beside: dict[str, float] = {}
    how: str = ""


def record(measure: Measure, machine: str, commit: str) -> Record:
    """The measure as it is written down."""
    return Record(**msgspec.structs.asdict(measure), ratio=measure.ratio, machine=machine, commit=commit)


def write(entry: Record, folder: Path = RESULTS) -> Path:
    """Writes the record whole to `folder`/NAME.json, and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{entry.measure}.json"
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(entry), indent=2) + b"\n")
    partial.replace(path)
    return path


def table(measures: list[Measure]) -> str:
    """All measures as one table for a person, the largest details below each, and at the end how they were taken."""
    rows: list[tuple[str, ...]] = [("measure", "ours", "unit", "peer", "ratio", "target", "")]
    for measure in measures:
        rows.append(
            (
                measure.measure,
                f"{measure.ours:g}",
                measure.unit,
                f"{measure.peer:g} ({measure.peer_name})" if measure.peer is not None else measure.peer_name or "-",
                f"{measure.ratio:g}" if measure.ratio is not None else "-",
                f"{measure.target:g}" if measure.target is not None else "-",
                measure.verdict,
            )
        )
        largest = sorted(measure.details.items(), key=lambda item: -item[1])[:12]
        rows += [(f"  {name}", f"{value:g}", measure.unit, "", "", "", "") for name, value in largest]
        if measure.beside:
            rows.append(("  " + ", ".join(f"{name} {value:g}" for name, value in measure.beside.items()),))
    full = [row for row in rows if len(row) > 1]
    widths = [max(len(row[column]) for row in full) for column in range(len(full[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows)
    hows = dict.fromkeys(measure.how for measure in measures if measure.how)
    return "\n".join([*(line.rstrip() for line in lines), *hows])

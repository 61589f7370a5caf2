"""The queue keeps its word whatever happens; a store that does not is found out. `make chaos` is the long run."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.actors import Habits
from tests.chaos.checker import check
from tests.chaos.history import Line, faults, tally
from tests.chaos.nemesis import EVERYTHING, Kind, schedule
from tests.chaos.run import Plan, run

IN_TESTS_S = 60.0
FAULT_S, ANOTHER_S = 3.5, 2.0
"""In so long there is room for the longest fault, and for a short one after it."""
HARD = Habits(again=0.5, keyed=1.0)
SEEN = dict.fromkeys(
    (
        *EVERYTHING, "published duplicate", "published unknown", "done stale", "retry ok", "reject ok", "move ok",
        "operated purge", "operated requeue", "blocks lost",
    ), 1,
) | {"published stored": 200, "done ok": 200, "delivered from another cluster": 20}  # fmt: skip
"""What a run does not end without; where it were, some rule would have had nothing to judge."""
ENDED = ("dead", "expired", "purged", "stored at a wrong hour")
"""What then is in the stores."""


def test_nothing_that_was_acknowledged_is_lost_whatever_happens() -> None:
    def enough(lines: Sequence[Line]) -> bool:
        happened = tally(lines) | faults(lines)
        return all(happened.get(what, 0) >= number for what, number in SEEN.items())

    outcome = report.judge(Plan(report.fresh_seed(), IN_TESTS_S, enough=enough))
    happened = outcome.tally | outcome.ends | outcome.faults
    least = SEEN | dict.fromkeys(ENDED, 1)
    assert {what: number for what, number in least.items() if happened.get(what, 0) < number} == {}, happened


def hard(store: str, kinds: tuple[Kind, ...], enough: Callable[[Sequence[Line]], bool]) -> Plan:
    """A short run of one cluster that puts the store to the test: all have keys, and every second comes again."""
    module = ("-m", "tests.chaos.broken", store)
    duration_s = FAULT_S + ANOTHER_S * (len(kinds) - 1)
    return Plan("broken", duration_s, kinds, habits=HARD, module=module, clusters=("a",), enough=enough)


@pytest.mark.parametrize(
    ("store", "kinds", "invariants"),
    [
        # Every kill and cut takes what was acknowledged before it, which is found when the queue is at rest.
        ("early-acknowledgement", ("kill-broker",), {"lost"}),
        ("no-sync", ("power-cut",), {"lost"}),
        # The others have to meet with what they are wrong about: the run goes on until the history shows it.
        ("forgetful-dedupe", ("kill-broker",), {"duplicate", "lost"}),
        ("one-fence", ("pause-consumer",), {"fencing"}),
        ("careless", ("pause-consumer",), {"order", "early", "attempts"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_store_that_breaks_its_word_is_found_out(
    store: str, kinds: tuple[Kind, ...], invariants: set[str], tmp_path: Path
) -> None:
    def enough(lines: Sequence[Line]) -> bool:
        return invariants - {"lost"} <= {violation.invariant for violation in check(lines, [])}

    outcome = run(hard(store, kinds, enough), tmp_path)
    assert invariants <= {violation.invariant for violation in outcome.violations}


def test_a_store_that_keeps_its_word_is_found_sound_in_the_same_run(tmp_path: Path) -> None:
    kinds: tuple[Kind, ...] = ("kill-broker", "power-cut", "pause-consumer")

    def enough(lines: Sequence[Line]) -> bool:
        return set(kinds) <= set(faults(lines)) and tally(lines).get("retry ok", 0) >= 10

    outcome = run(hard("sound", kinds, enough), tmp_path)
    assert set(kinds) <= set(outcome.faults)
    assert outcome.violations == []


def test_a_schedule_follows_from_its_seed_and_has_everything_in_it() -> None:
    steps = schedule("a seed", 60.0, 1.0)
    assert steps == schedule("a seed", 60.0, 1.0) != schedule("another", 60.0, 1.0)
    assert {step.kind for step in steps} == set(EVERYTHING)
    assert all(later.at_s > earlier.at_s + earlier.for_s for earlier, later in pairwise(steps))
    assert steps[-1].at_s + steps[-1].for_s <= 60.0

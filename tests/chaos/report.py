"""Judging a run: the seed is said before it, and after a failure what is left of it and how to play it again."""

import os
import shutil
import time
from pathlib import Path

from tests.chaos.checker import summary
from tests.chaos.layer import REPOSITORY, swept
from tests.chaos.run import Outcome, Plan, run
from tests.chaos.stage import Unexpected

KEPT = REPOSITORY / "build" / "chaos"


def fresh_seed() -> str:
    """Return a seed that was not used before."""
    return os.urandom(4).hex()


def judge(plan: Plan) -> Outcome:
    """Run the plan and return its outcome; raise AssertionError where the queue has not kept its word."""
    directory: Path = KEPT / plan.seed
    again = f'make chaos ARGS="--seed {plan.seed} --duration {plan.duration_s:g}"'
    print(f"{plan.duration_s:g} s of faults with the seed {plan.seed}; the same again: {again}", flush=True)
    for mount in swept():
        print(f"A run that was killed had left {mount}, which is gone now.", flush=True)
    began = time.monotonic()
    try:
        outcome = run(plan, directory)
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    except (Unexpected, ExceptionGroup) as error:
        raise AssertionError(f"{_told(error)}\nKept in {directory}; the same again: {again}") from error
    print(f"After {time.monotonic() - began:.0f} s. {_facts(outcome)}", flush=True)
    if outcome.violations:
        raise AssertionError(f"{summary(outcome.violations)}\nKept in {directory}; the same again: {again}")
    shutil.rmtree(directory)
    return outcome


def _facts(outcome: Outcome) -> str:
    parts = {"What went wrong": outcome.faults, "what was done": outcome.tally, "how it ended": outcome.ends}
    told = {part: ", ".join(f"{what} {number}" for what, number in numbers.items()) for part, numbers in parts.items()}
    return "\n".join(f"{part}: {facts}." for part, facts in told.items())


def _told(error: BaseException) -> str:
    """Return what the errors in a group say, one a line."""
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(_told(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"

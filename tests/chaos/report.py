"""Judging a run: the seed is said before it, and after a failure what is left of it and how to play it again."""

import os
import shutil
import time
from pathlib import Path

from tests.chaos.checker import summary
from tests.chaos.layer import REPOSITORY
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
    began = time.monotonic()
    try:
        outcome = run(plan, directory)
    except (Unexpected, ExceptionGroup) as error:
        raise AssertionError(f"{_told(error)}\nKept in {directory}; the same again: {again}") from error
    facts = ", ".join(f"{what} {number}" for what, number in outcome.tally.items())
    print(f"{len(outcome.steps)} faults in {time.monotonic() - began:.0f} s: {facts}", flush=True)
    if outcome.violations:
        raise AssertionError(f"{summary(outcome.violations)}\nKept in {directory}; the same again: {again}")
    shutil.rmtree(directory)
    return outcome


def _told(error: BaseException) -> str:
    """Return what the errors in a group say, one a line."""
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(_told(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"

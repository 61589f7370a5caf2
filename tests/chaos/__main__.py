"""`make chaos [ARGS="--seed SEED --duration SECONDS"]`: ten minutes of faults, and the checker's word."""

import argparse
import sys

from tests.chaos import report
from tests.chaos.run import Plan

TEN_MINUTES_S = 600.0


def main() -> int:
    """Return 1 where the queue has not kept its word."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", default=report.fresh_seed(), help="plays a run again")
    parser.add_argument("--duration", type=float, default=TEN_MINUTES_S, metavar="SECONDS")
    options = parser.parse_args()
    try:
        report.judge(Plan(options.seed, options.duration))
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    print("Nothing that was acknowledged is lost, and every rule held.")
    return 0


sys.exit(main())

"""`make chaos [ARGS="--seed SEED --duration SECONDS"]`: ten minutes of faults, and the checker's word."""

import argparse
import logging
import signal
import sys

from tests.chaos import report
from tests.chaos.run import Plan

TEN_MINUTES_S = 600.0
INTERRUPTED = 128 + signal.SIGINT


def main() -> int:
    """Return 1 where the queue has not kept its word, and 130 where it was not to be judged."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", default=report.fresh_seed(), help="plays a run again")
    parser.add_argument("--duration", type=float, default=TEN_MINUTES_S, metavar="SECONDS")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have switched off
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        report.judge(Plan(options.seed, options.duration))
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped before its end: nothing was judged, and nothing is left of it.", file=sys.stderr)
        return INTERRUPTED
    print("Nothing that was acknowledged is lost, and every rule held.")
    return 0


sys.exit(main())

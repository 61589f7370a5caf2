"""What runs in the firmware's tree: `python3 -m tests.bench.hosts.inside split|rest|drift RUNS`.

Takes all figures, both sides in turn within each run, and prints them as JSON.
"""

import subprocess
import sys

import msgspec

from tests.bench.hosts import drifting, rest, take
from tests.bench.hosts.figures import SIZES, Split, Splits

LONGEST_S = 600.0


def taken(*arguments: str) -> Split:
    """Make a machine from nothing in namespaces of its own."""
    done = subprocess.run(take.command(*arguments), stdout=subprocess.PIPE, check=True, timeout=LONGEST_S)
    return msgspec.json.decode(done.stdout, type=Split)


def splits(runs: int) -> Splits:
    """Make every machine once in each run, ours and by hand; in the first they are compared."""
    ours: dict[int, list[Split]] = {size: [] for size in SIZES}
    by_hand: dict[int, list[Split]] = {size: [] for size in SIZES}
    different: list[str] = []
    for run in range(runs):
        for size in SIZES:
            extra = ["held"] if run == 0 else []
            one, other = taken("ours", str(size), *extra), taken("by-hand", str(size), *extra)
            different += differences(one, other)
            for found, each in ((ours, one), (by_hand, other)):
                found[size].append(msgspec.structs.replace(each, held={}))
            say(f"{run + 1}/{runs} {size} servers: ours {one.took_s:.2f} s, by hand {other.took_s:.2f} s")
    profiles = {size: taken("ours", str(size), "profile").profile for size in SIZES}
    return Splits(ours=ours, by_hand=by_hand, different=different, profiles=profiles)


def differences(one: Split, other: Split) -> list[str]:
    """Return what only one of two hosts holds, in lines."""
    return [
        f"{name}, {who}: {line}"
        for name in sorted(one.held.keys() | other.held.keys())
        for who, these, those in (("ours", one, other), ("by hand", other, one))
        for line in these.held.get(name, [])
        if line not in those.held.get(name, [])
    ]


def say(line: str) -> None:
    """Let a person see that it moves."""
    print(f"  {line}", file=sys.stderr, flush=True)


def main(what: str, runs: str) -> None:
    work = {"split": splits, "rest": rest.at_rest, "drift": drifting.drifts}[what]
    figures: msgspec.Struct = work(int(runs))
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])

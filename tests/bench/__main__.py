"""`make bench [ONLY=name] [ARGS=--quick]`: takes the measures of this folder, writes each to build/bench/NAME.json,
prints one table.

A measure is a module with `measure() -> Measure`, or `measures(quick) -> list[Measure]` where one run gives several;
`quick` asks for one run in place of the median of five.
"""

import argparse
import importlib
import platform
import re
import subprocess
import sys
from pathlib import Path

from scripts.building.failure import Failure, exit_status
from tests.bench import measure

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """All measures there are."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if re.search(r"^def measures?\(", file.read_text(), re.M))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--quick", action="store_true", help="one run in place of the median of five")
    parser.add_argument("measures", nargs="*")
    asked = parser.parse_args()
    wanted = asked.measures or names()
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        raise Failure("no-such-measure", f"There is no measure {unknown[0]}.", f"Measures: {', '.join(names())}.")
    taken: list[measure.Measure] = []
    for name in wanted:
        print(f"Measuring {name} …", file=sys.stderr, flush=True)
        module = importlib.import_module(f"tests.bench.{name}")
        found = module.measures(asked.quick) if hasattr(module, "measures") else [module.measure()]
        for one in found:
            measure.write(measure.record(one, machine(), commit()))
        taken += found
    print(measure.table(taken))


def machine() -> str:
    """What the numbers were taken on: CPU, cores, memory."""
    models = (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    kilobytes = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    cores = sum(line.startswith("processor") for line in _lines("/proc/cpuinfo"))
    return f"{next(models, platform.machine())}, {cores} cores, {kilobytes // 1048576} GiB"


def commit() -> str:
    """The commit that was measured, marked where the working copy differs from it."""
    answer = subprocess.run(
        ["git", "-c", f"safe.directory={FOLDER.parents[1]}", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return answer.stdout.strip() or "unknown"


def _lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines()


sys.exit(exit_status("bench", main))

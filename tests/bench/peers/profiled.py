"""Runs a module with its busiest thread under cProfile: `python3 -m tests.bench.peers.profiled [-m] MODULE ARGUMENTS`.

Of the broker that is the loop's own thread, of a load the only one.
"""

import cProfile
import io
import pstats
import runpy
import sys
from pathlib import Path

from appliance.queue import loop

PROFILED = (sys.executable, "-m", "tests.bench.peers.profiled")
FOLDER = Path("/tmp/profiles")
LINES = 30


def taken() -> str:
    """Return what was seen since the last time, as text."""
    text = io.StringIO()
    for file in sorted(FOLDER.iterdir()):
        text.write(f"== {file.name}\n")
        pstats.Stats(str(file), stream=text).strip_dirs().sort_stats("tottime").print_stats(LINES)
        file.unlink()
    return text.getvalue()


def main(module: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    profile = cProfile.Profile()
    run = loop.Loop.run

    def profiled(self: loop.Loop) -> None:
        profile.runcall(run, self)

    try:
        if module == "appliance.queue.service":
            loop.Loop.run = profiled  # type: ignore[method-assign]  # the loop is what is looked at
            runpy.run_module(module, run_name="__main__")
        else:
            profile.runcall(runpy.run_module, module, run_name="__main__")
    finally:
        profile.dump_stats(FOLDER / " ".join([module.rpartition(".")[2], *sys.argv[1:]]))


if __name__ == "__main__":
    if sys.argv[1] == "-m":
        del sys.argv[1]
    del sys.argv[0]
    main(sys.argv[0])

"""The bench layer: the peers' Debian packages, laid over the firmware's root tree, and a way to run something in it, or
in the tree alone.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.building import inputs, mkosirun, paths, publish, space, tree
from scripts.building.failure import Failure

CONFIGURATION = paths.REPOSITORY / "tests/bench/layer"
PLACE = paths.BUILD / "bench-layer"
STATE = paths.BUILD / "bench-state"
PROFILE = "qemu"
LONGEST_S = 5400.0
INSIDE = "tests.bench.peers.inside"


def build() -> Path:
    """Return the layer's directory, made when it is not up to date."""
    link, wanted = PLACE / "root", inputs.digest([str(CONFIGURATION.relative_to(paths.REPOSITORY)), "image/tools"])
    if publish.up_to_date(link, wanted):
        return link.resolve()
    space.require(paths.BUILD, 2000, "Building the bench layer")
    PLACE.mkdir(exist_ok=True)
    mkosirun.build("bench", "Building the bench layer", folder=CONFIGURATION)
    return publish.publish_directory(mkosirun.OUT / "bench", link, wanted)


def run(module: str, *arguments: str) -> bytes:
    """Run `python3 -m MODULE ARGUMENTS` with the firmware's Python and the peers; return its standard output.

    Without the layer (no package server) there is the tree alone, and the peers are missing.
    """
    try:
        above = [str(build())]
    except Failure as failure:
        print(f"There are no peers to measure: {failure}", file=sys.stderr, flush=True)
        above = []
    return alone(module, *arguments, above=above)


def alone(module: str, *arguments: str, above: Sequence[str] = ()) -> bytes:
    """The same in the firmware's tree with only `above` laid over it."""
    lower = [*above, str(tree.path(PROFILE).resolve())]
    STATE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-root-") as root, tempfile.TemporaryDirectory(dir=STATE) as state:
        spaces = ["--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child"]
        enter = [sys.executable, "-m", "tests.bench.peers.enter", root, state, ":".join(lower)]
        done = subprocess.run(
            ["unshare", *spaces, "--", *enter, module, *arguments],
            cwd=paths.REPOSITORY, stdout=subprocess.PIPE, timeout=LONGEST_S, check=True,
        )  # fmt: skip
    return done.stdout

"""Command line of `scripts/run`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from appliance import hwprofile
from appliance.errors import ApplianceError
from scripts.virtual import image
from scripts.virtual.session import Request, run_attached, run_plain, run_until_ready
from scripts.virtual.terminal import ESCAPE_NAME

_ABOUT = f"""Boot the firmware under QEMU with UEFI and attach this terminal to its local console.

{ESCAPE_NAME} (or Ctrl-C) switches the machine off cleanly; Ctrl-C meanwhile pulls the plug. Without a terminal the
facts come as lines, and SIGTERM or SIGINT does the same."""


def parser() -> argparse.ArgumentParser:
    """The options of `make run ARGS=…`."""
    options = argparse.ArgumentParser("run", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--fresh", action="store_true", help="discard the machine of the last run and begin with a new one"
    )
    options.add_argument(
        "--until-ready",
        action="store_true",
        help="wait for the appliance's own health check, print one JSON line, switch off; progress goes to stderr",
    )
    options.add_argument("--profile", default="qemu", help="hardware profile the image was built for (default: qemu)")
    options.add_argument(
        "--deadline", type=float, default=900.0, metavar="S", help="seconds until ready (default: 900)"
    )
    options.add_argument(
        "--state",
        type=Path,
        default=image.REPOSITORY / "build" / "run",
        help="directory of the machine that is kept between runs (default: build/run)",
    )
    return options


def main(arguments: Sequence[str]) -> int:
    """Run as asked; returns the exit code, an error being shown as sentence, code and hint."""
    chosen = parser().parse_args(arguments)
    try:
        profile = hwprofile.load(image.REPOSITORY / "hwprofiles" / f"{chosen.profile}.toml")
        request = Request(
            image=image.disk_image(profile.name),
            folder=chosen.state.resolve(),
            fresh=chosen.fresh,
            cpus=profile.budget.cpus,
            memory_mib=profile.budget.memory_mb,
            deadline_s=chosen.deadline,
        )
        if chosen.until_ready:
            return asyncio.run(run_until_ready(request))
        if sys.stdin.isatty() and sys.stdout.isatty():
            return asyncio.run(run_attached(request))
        return asyncio.run(run_plain(request))
    except ApplianceError as error:
        print(f"run: {error}", file=sys.stderr)
        return 1

"""The command line of `scripts/build`."""

import argparse
from pathlib import Path

from appliance import hwprofile
from appliance.errors import ApplianceError
from scripts.building import artifacts, disk, paths, publish, tree
from scripts.building.failure import Failure, exit_status

OUTPUTS = {"tree": tree.build, "disk": disk.build, "artifacts": artifacts.build}


def main(arguments: list[str]) -> int:
    """Builds one output and says where it is; returns the exit status."""
    parser = argparse.ArgumentParser(prog="build", description=__doc__)
    parser.add_argument("output", choices=sorted(OUTPUTS))
    parser.add_argument("profile", nargs="?", default="qemu", help="a file name in hwprofiles/, without .toml")
    chosen = parser.parse_args(arguments)

    def build() -> None:
        print(made(chosen.output, chosen.profile).relative_to(paths.REPOSITORY), flush=True)

    return exit_status("build", build)


def made(output: str, profile: str) -> Path:
    """The path of an up-to-date output; raises Failure."""
    try:
        hwprofile.load(paths.REPOSITORY / f"hwprofiles/{profile}.toml")
        with publish.alone(paths.BUILD):
            return OUTPUTS[output](profile)
    except ApplianceError as error:
        raise Failure(error.code, error.message, error.advice) from error
    except OSError as error:
        if error.errno == 28:  # ENOSPC
            raise Failure(
                "no-space",
                f"Building the {output} failed: there is no space left.",
                f"Free some on the disk that holds {paths.BUILD}.",
            ) from error
        raise

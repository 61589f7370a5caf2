"""Free disk space, asked for before a step that would fail half-way without it."""

import os
from pathlib import Path

from scripts.building.failure import Failure

MIB = 1024 * 1024


def require(folder: Path, mib: int, purpose: str) -> None:
    """Refuses when the disk that holds `folder` has less than `mib` MiB free for this user."""
    place = folder
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize // MIB
    if free < mib:
        raise Failure(
            "no-space",
            f"{purpose} needs {mib} MiB in {folder}, and {free} MiB are free.",
            "Free some space, or clone the project to a larger disk.",
        )

"""Where a lab keeps what it needs on disk, and how leftovers of a killed one are found and removed.

`/var/lib/alpha-ren-lab/NAME/` is locked for as long as any process of the lab lives: watcher and keeper share the
open lock file, so the kernel drops the lock at the moment the last of them is gone, however it went.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from scripts.labs import cgroup
from scripts.labs.errors import LabExists, NoSuchLab

ROOT = Path("/var/lib/alpha-ren-lab")
LAN_LOG = "_lan.log"
"""What the LANs' servers say; the underscore keeps it apart from the logs of machines and hosts, NAME.log."""


def folder(lab: str) -> Path:
    """Return the lab's folder."""
    return ROOT / lab


def control_socket(lab: str) -> Path:
    """Return the path of the socket on which the lab's keeper answers."""
    return folder(lab) / "control"


def claim(lab: str) -> int:
    """Return the locked descriptor of a new lab's folder; raise LabExists while another lab has the name."""
    place = folder(lab)
    while True:
        try:
            ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # a sweeper removed the folder between two of these lines
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(place / "lock")):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise LabExists(f"A lab called `{lab}` is up already.") from None
        except FileNotFoundError:
            pass  # swept between open and lock
        os.close(descriptor)


def remember_group(lab: str, group: Path) -> None:
    """Write down which control groups are the lab's, for whoever clears up after it."""
    (folder(lab) / "cgroup").write_text(str(group), encoding="utf-8")


def names() -> list[str]:
    """Return the names of the labs that are up."""
    return [name for name in _folders() if _is_held(name)]


def sweep() -> list[str]:
    """Remove what killed labs left on disk and in the control groups, and return their names."""
    gone = []
    for name in _folders():
        with _abandoned(name) as dead:
            if dead:
                erase(name)
                gone.append(name)
    return gone


def erase(lab: str) -> None:
    """Remove the folder and the control groups of a lab whose processes have all ended."""
    place = folder(lab)
    with contextlib.suppress(FileNotFoundError):
        cgroup.remove(Path((place / "cgroup").read_text(encoding="utf-8")))
    shutil.rmtree(place)
    with contextlib.suppress(OSError):  # not empty: other labs are up
        ROOT.rmdir()


def the_only(lab: str | None) -> str:
    """Return the lab that is meant: the one named, or the only one that is up; raise NoSuchLab."""
    up = names()
    if lab is not None:
        if lab not in up:
            raise NoSuchLab(f"No lab called `{lab}` is up.")
        return lab
    if len(up) == 1:
        return up[0]
    if not up:
        raise NoSuchLab("No lab is up.", hint="Start one with `make lab` or `scripts/lab up`.")
    raise NoSuchLab(f"Several labs are up ({', '.join(up)}).", hint="Say which one with `--name`.")


def _folders() -> list[str]:
    return sorted(place.name for place in ROOT.iterdir()) if ROOT.is_dir() else []


def _is_held(lab: str) -> bool:
    with _abandoned(lab) as dead:
        return not dead


@contextlib.contextmanager
def _abandoned(lab: str) -> Iterator[bool]:
    """Yield whether nobody holds the lab's lock, holding it meanwhile if so."""
    try:
        descriptor = os.open(folder(lab) / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        with contextlib.suppress(OSError):  # someone makes or removes it at this moment, or was killed while making it
            folder(lab).rmdir()
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)

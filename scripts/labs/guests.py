"""The disks of virtual machines inside a machine of the lab: the firmware's /usr, and the working copy over it.

A box gives its guests the disk that its own /usr is on. In the lab /usr is a folder, so it is made into a disk: once
for a tree, and the working copy, which is small, at each start of a lab.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from scripts.labs.errors import LabError

USR = "/srv/alpha-ren/usr.erofs"
CODE = "/srv/alpha-ren/code.erofs"
"""Where a machine finds them."""

PACKAGES = ("appliance", "firstboot")
PLACE = "lib/alpha-ren"
NOT_FROM_DISK = ("vmlinux", "initrd")
"""What QEMU reads by itself."""
LONGEST_S = 120


class Disks(msgspec.Struct, frozen=True, kw_only=True):
    """The two disks, as files on this computer."""

    usr: Path
    code: Path


def make(tree: Path, working_copy: Path, folder: Path) -> Disks:
    """Return the disks, that of the working copy made in `folder`; raise LabError where one cannot be made."""
    folder.mkdir(mode=0o700)
    usr = usr_of(tree)
    if not usr.exists():
        write_usr(tree, usr)
    code = folder / "code.erofs"
    write_code(tree, working_copy, code)
    return Disks(usr=usr, code=code)


def usr_of(tree: Path) -> Path:
    """Return where the disk of a tree is: beside it, where the next build of the tree removes it."""
    return tree.with_name(f"{tree.name}.erofs")


def write_usr(tree: Path, target: Path) -> None:
    """Write the disk of the tree's /usr, whole or not at all."""
    # Not packed: it is made in a second instead of a quarter of a minute, and no emulated CPU has to unpack it.
    excluded = [f"--exclude-path={PLACE}/guest/{name}" for name in NOT_FROM_DISK]
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        made = Path(scratch) / "usr.erofs"
        _run(["mkfs.erofs", "--quiet", "-T0", *excluded, str(made), str(tree / "usr")])
        made.rename(target)


def write_code(tree: Path, working_copy: Path, target: Path) -> None:
    """Write the disk of the working copy's packages, compiled by the tree's own Python, not in the guests."""
    with tempfile.TemporaryDirectory(prefix=".code.", dir=target.parent) as scratch:
        root = Path(scratch)
        for package in PACKAGES:
            source = working_copy / package
            shutil.copytree(source, root / PLACE / package, ignore=shutil.ignore_patterns("__pycache__"))
        options = ["-q", "--invalidation-mode", "unchecked-hash", "-s", scratch, "-p", "/usr"]
        _run([*python(tree), "-m", "compileall", *options, scratch], PYTHONHOME=str(tree / "usr"))
        _run(["mkfs.erofs", "--quiet", "-T0", "--all-root", str(target), scratch])


def python(tree: Path) -> list[str]:
    """Return how the tree's Python runs on this computer, whose libraries may be older."""
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    loader = [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)]
    return [*loader, str((tree / "usr/bin/python3").resolve()), "-S"]


def _run(command: list[str], **environment: str) -> None:
    try:
        subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, check=True, text=True, timeout=LONGEST_S
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or ["it said nothing"]
        raise LabError(f"A disk for virtual machines could not be made: {said[-1]}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"A disk for virtual machines was not made within {LONGEST_S} s.") from error

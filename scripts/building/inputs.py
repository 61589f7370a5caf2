"""What a step is made from: a digest of its inputs decides whether it must be done again, and dates what it makes."""

import hashlib
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from scripts.building import paths

IGNORED = {"__pycache__"}

# What decides the bytes of the firmware; everything else in the repository may change without a rebuild.
FIRMWARE = (
    "appliance",
    "firstboot",
    "hwprofiles",
    "image",
    "requirements/box.lock",
    "scripts/building/disk.py",
    "scripts/building/mkosirun.py",
    "scripts/building/tree.py",
    "scripts/building/wheels.py",
)


def files(names: Iterable[str], root: Path = paths.REPOSITORY) -> list[Path]:
    """All files below these names, in a stable order; Python's caches are none."""
    found: list[Path] = []
    for name in names:
        path = root / name
        below = [path] if path.is_file() else sorted(path.rglob("*"))
        found += [file for file in below if (file.is_symlink() or file.is_file()) and not IGNORED & set(file.parts)]
    return found


def digest(names: Iterable[str], *extra: str, root: Path = paths.REPOSITORY) -> str:
    """SHA-256 over names, modes and contents of these files and over the extra words."""
    sha = hashlib.sha256()
    for file in files(names, root):
        mode = "l" if file.is_symlink() else "x" if file.stat().st_mode & 0o100 else "-"
        content = str(file.readlink()).encode() if file.is_symlink() else file.read_bytes()
        sha.update(f"{file.relative_to(root)}\0{mode}\0{len(content)}\0".encode() + content)
    for word in extra:
        sha.update(f"\0{word}".encode())
    return sha.hexdigest()


def epoch(root: Path = paths.REPOSITORY) -> int:
    """The date (seconds since 1970) of the last commit that changed the firmware; 2026-01-01 without a repository."""
    answer = _git(root, "log", "-1", "--format=%ct", "--", *FIRMWARE)
    return int(answer) if answer else 1767225600


def version(root: Path = paths.REPOSITORY) -> str:
    """The firmware's version: it follows from its inputs alone, and a later commit has the higher one.

    What is not committed is marked by a piece of its digest.
    """
    release = (root / "image/version").read_text().strip()
    committed = f"{release}.{time.strftime('%Y%m%d%H%M%S', time.gmtime(epoch(root)))}"
    clean = _git(root, "rev-parse", "HEAD") and not _git(root, "status", "--porcelain", "--", *FIRMWARE)
    return committed if clean else f"{committed}+{digest(FIRMWARE, root=root)[:8]}"


def _git(root: Path, *arguments: str) -> str:
    """What git says, or nothing where this is no repository; the owner of the clone may be somebody else (sudo)."""
    try:
        answer = subprocess.run(
            ["git", "-c", f"safe.directory={root}", "-C", root, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except FileNotFoundError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""

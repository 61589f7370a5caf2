"""How large the firmware is: what is stored of the disk image, and from which packages it comes (unpacked)."""

from collections import defaultdict
from pathlib import Path

import msgspec

from scripts.building import disk, tree
from tests.bench.measure import Measure

PROFILE = "qemu"


def measure() -> Measure:
    """The megabytes that the qemu profile's disk image stores; details are what its packages take unpacked."""
    origins = msgspec.json.decode(tree.origins(PROFILE).read_bytes(), type=dict[str, list[str]])
    return Measure(
        measure="size",
        unit="MB",
        ours=round(disk.path(PROFILE).stat().st_blocks * 512 / 1e6, 1),
        better="lower",
        details=by_package(tree.path(PROFILE).resolve(), origins),
    )


def by_package(root: Path, origins: dict[str, list[str]]) -> dict[str, float]:
    """Megabytes below /usr of each Debian package, of each Python package, and of what the build made, from 0.1 MB."""
    package_of = {str(_unmerged(path)): name for name, paths in origins.items() for path in paths}
    sizes: dict[str, float] = defaultdict(float)
    for file in (root / "usr").rglob("*"):
        if file.is_symlink() or not file.is_file():
            continue
        place = file.relative_to(root)
        sizes[package_of.get(f"/{place}") or _made_by(place)] += file.stat().st_size / 1e6
    return {name: round(size, 1) for name, size in sorted(sizes.items()) if size >= 0.1}


def _unmerged(path: str) -> Path:
    """A path as a package lists it, where /usr has it: older packages still list /lib and /sbin."""
    return Path("/usr", path.lstrip("/")) if path.startswith(("/bin/", "/lib", "/sbin/")) else Path(path)


def _made_by(place: Path) -> str:
    parts = place.parts
    if "site-packages" in parts:
        return f"python: {parts[parts.index('site-packages') + 1].partition('-')[0].partition('.')[0]}"
    if "__pycache__" in parts:
        return "build: compiled Python library"
    return f"build: {'/'.join(parts[:3])}"

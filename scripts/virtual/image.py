"""The finished disk image of a hardware profile."""

from pathlib import Path

from scripts.virtual.errors import ImageMissing

REPOSITORY = Path(__file__).resolve().parents[2]


def disk_image(profile: str) -> Path:
    """The image that was built for `profile`; `ImageMissing` if there is none."""
    image = REPOSITORY / "build" / "image" / profile / "disk.raw"
    if not image.is_file():
        raise ImageMissing(f"There is no finished image for the profile {profile}.")
    return image


def size_mb(image: Path) -> float:
    """What the image takes on disk in megabytes; its holes (the empty B slot) count for nothing."""
    return round(image.stat().st_blocks * 512 / 1e6, 1)

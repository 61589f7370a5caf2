"""The kernel as QEMU starts it without unpacking: what is in a boot image (Linux: Documentation/arch/x86/boot.rst)."""

import struct
import subprocess

SIGNATURE = b"HdrS"
ZSTD = b"\x28\xb5\x2f\xfd"


def payload(image: bytes) -> bytes:
    """Return the packed kernel in a boot image; raise ValueError where this is none, or not packed by zstd."""
    if image[0x202:0x206] != SIGNATURE:
        raise ValueError("This is no Linux boot image.")
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    packed = image[start : start + length]
    if not packed.startswith(ZSTD):
        raise ValueError("The kernel is not packed by zstd any more.")
    # Behind it there is its size, which is no part of the stream.
    return packed[:-4]


def unpacked(image: bytes) -> bytes:
    """Return the ELF kernel in a boot image, which QEMU starts by its PVH entry.

    An emulated CPU would unpack it for longer than a second.
    """
    return subprocess.run(["zstd", "-dc"], input=payload(image), capture_output=True, check=True, timeout=120).stdout

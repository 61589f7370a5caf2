"""What a virtual machine starts from: which modules, which kernel, which root."""

import os
import struct
from pathlib import Path

import pytest

from appliance.host.guest import GROUP, GROUP_NUMBER
from image.cutting import guest, kernel
from scripts.building.paths import REPOSITORY

INDEX = """kernel/drivers/block/virtio_blk.ko.xz:
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz:
"""


def boot_image(packed: bytes) -> bytes:
    """A Linux boot image with two sectors of setup, and `packed` 16 bytes behind them."""
    header = bytearray(1536)
    header[0x1F1] = 2
    header[0x202:0x206] = kernel.SIGNATURE
    struct.pack_into("<II", header, 0x248, 16, len(packed))
    return bytes(header) + bytes(16) + packed + b"what comes after"


def test_modules_come_with_those_they_need_and_no_others() -> None:
    names = [guest.flat(file) for file in guest.chosen(("virtio_net", "virtio_rng"), INDEX)]
    assert names == ["virtio_net.ko", "net_failover.ko", "failover.ko", "virtio-rng.ko"]


def test_the_kernel_in_a_boot_image_is_found_without_the_size_behind_it() -> None:
    packed = kernel.ZSTD + b"packed"
    assert kernel.payload(boot_image(packed + b"\x01\x02\x03\x04")) == packed


@pytest.mark.parametrize("image", [b"\0" * 2048, boot_image(b"\xfd7zXZ\0 packed by another")])
def test_what_is_no_boot_image_or_packed_otherwise_is_refused(image: bytes) -> None:
    with pytest.raises(ValueError, match=r"The kernel is|no Linux"):
        kernel.payload(image)


def test_the_root_is_links_into_usr_and_hides_what_systemd_need_not_do(tmp_path: Path) -> None:
    (tmp_path / guest.GENERATORS).mkdir(parents=True)
    (tmp_path / guest.GENERATORS / "systemd-fstab-generator").touch()
    (tmp_path / "usr/share/alpha-ren/etc/ssl").mkdir(parents=True)
    root = tmp_path / "root"
    guest.write_root(tmp_path, root)
    assert os.readlink(root / "bin") == "usr/bin"
    assert os.readlink(root / "etc/ssl") == "../usr/share/alpha-ren/etc/ssl"
    assert os.readlink(root / "etc/systemd/system-generators/systemd-fstab-generator") == "/dev/null"
    assert (root / "etc/machine-id").read_bytes() == b""
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_the_group_of_the_cables_has_the_number_that_they_are_made_with() -> None:
    named = (REPOSITORY / "image/tree/mkosi.extra/usr/lib/sysusers.d/alpha-ren.conf").read_text(encoding="utf-8")
    assert ["g", GROUP, str(GROUP_NUMBER)] in [line.split()[:3] for line in named.splitlines()]

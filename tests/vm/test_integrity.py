"""What was tampered with is refused: a block of /usr by dm-verity, the kernel image by Secure Boot."""

import mmap
import subprocess
from pathlib import Path

from tests.vm.driver import VirtualMachine

_BLOCK = 4096


def test_a_changed_block_of_usr_cannot_be_read(machine: VirtualMachine) -> None:
    # The slave with the file system comes before the one with the hashes, as their partition numbers do.
    partition = machine.output("sh", "-c", "ls /sys/block/dm-0/slaves | sort | head -n 1")
    start = int(machine.output("cat", f"/sys/class/block/{partition}/start")) * 512
    blocks = int(machine.output("cat", "/sys/block/dm-0/size")) * 512 // _BLOCK
    victim = blocks // 2
    read = ("dd", "if=/dev/mapper/usr", "of=/dev/null", f"bs={_BLOCK}", "count=1", f"skip={victim}", "iflag=direct")
    machine.output(*read)

    machine.write_to_disk(start + victim * _BLOCK, _BLOCK)

    refused = machine.run(*read)
    assert refused.code != 0
    assert "Input/output error" in refused.err
    assert "is corrupted" in machine.output("journalctl", "-b", "-k", "-o", "cat", "-n", "50")


def test_a_changed_kernel_image_does_not_start(machine: VirtualMachine, tmp_path: Path) -> None:
    if machine.is_running:
        machine.kill()
    tamper_with_command_line(machine.disk, tmp_path / "disk.raw")
    machine.start()
    machine.expect_on_console(rb"(?i)access denied|security violation", 120)
    machine.kill()


def tamper_with_command_line(disk: Path, copy: Path) -> None:
    """Change one letter of the kernel command line in every signed kernel image on the disk."""
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(disk), str(copy)], check=True, timeout=300)
    offsets = []
    with copy.open("rb") as raw, mmap.mmap(raw.fileno(), 0, prot=mmap.PROT_READ) as content:
        found = content.find(b"usrhash=")
        while found >= 0:
            offsets.append(found)
            found = content.find(b"usrhash=", found + 1)
    assert offsets, "no kernel image with a verity hash on its command line"
    for offset in offsets:
        command = ["qemu-io", "-f", "qcow2", "-c", f"write -P 0x58 {offset} 1", str(disk)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

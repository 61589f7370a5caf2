"""A stock Debian 13 in a virtual machine, for what has to be seen on a host with systemd and pure cgroup v2.

The guest is built once and kept in `build/guest`; its disk is never written to. It boots Debian's own kernel and initrd
directly, runs one command that the kernel command line names, and powers off.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from appliance.host.accelerator import EMULATOR, Accelerator
from scripts.building import inputs, mkosirun, paths, publish

HERE = Path(__file__).parent / "guest"
GUEST = paths.BUILD / "guest"
ROOT_MB = 1500
TREE_SPARE_MB = 200
MEMORY_MB = 2048
DEADLINE_S = 900.0
TREE_IN_GUEST = "/srv/tree"
COPY_IN_GUEST = "/srv/copy"


def build() -> Path:
    """Make the guest when it is not up to date; return the folder with `disk`, `kernel` and `initrd`."""
    digest = inputs.digest([f"tests/vm/guest/{name}" for name in ("mkosi.conf", "mkosi.postinst.chroot")], "1")
    with publish.alone(paths.MKOSI):
        if publish.up_to_date(GUEST, digest):
            return GUEST
        mkosirun.build("guest", "Building a stock Debian guest", folder=HERE)
        made, partial = mkosirun.OUT / "guest", paths.BUILD / "guest.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for kind, pattern in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            shutil.copyfile(next((made / "boot").glob(pattern)), partial / kind)
        disk(made, partial / "disk", ROOT_MB)
        publish.publish(partial, GUEST, digest)
        shutil.rmtree(made)
    return GUEST


def disk(folder: Path, image: Path, size_mb: int) -> Path:
    """Make an ext4 image of `size_mb` MB with the content of `folder`; return its path."""
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(folder), str(image), f"{size_mb}M"], check=True, timeout=300
    )
    return image


def lay_out(folder: Path, tree: Path, copied: Sequence[str]) -> tuple[Path, Path]:
    """Make the disks with the firmware's tree and with the named parts of the repository; return their paths."""
    size_mb = sum(file.lstat().st_size for file in tree.rglob("*") if file.is_file()) // 1_000_000
    copy = folder / "copy"
    for name in copied:
        shutil.copytree(paths.REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return disk(tree, folder / "tree.img", size_mb + TREE_SPARE_MB), disk(copy, folder / "copy.img", 64)


def run(command: str, disks: tuple[Path, Path], accelerator: Accelerator, log: Path) -> str:
    """Boot the guest with both `disks` mounted, run `command` in it, and return what its serial console said.

    Raises subprocess.TimeoutExpired when it has not powered off within DEADLINE_S; `log` has the console then too.
    """
    guest = build()
    cmdline = [
        "root=/dev/vda rw console=ttyS0 fsck.mode=skip systemd.firstboot=off systemd.journald.forward_to_console=no",
        f"systemd.mount-extra=/dev/vdb:{TREE_IN_GUEST}:ext4:ro",
        f"systemd.mount-extra=/dev/vdc:{COPY_IN_GUEST}:ext4:ro",
        f'systemd.run="{command}" systemd.run_success_action=poweroff systemd.run_failure_action=poweroff',
    ]
    drives = [(guest / "disk", "snapshot=on"), *((each, "readonly=on") for each in disks)]
    log.parent.mkdir(parents=True, exist_ok=True)
    argv = [
        EMULATOR, "-machine", "q35", *accelerator.arguments, "-smp", "2", "-m", str(MEMORY_MB),
        "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{log}",
        "-kernel", str(guest / "kernel"), "-initrd", str(guest / "initrd"), "-append", " ".join(cmdline),
    ]  # fmt: skip
    for number, (path, mode) in enumerate(drives):
        argv += [
            "-drive",
            f"file={path},format=raw,if=none,id=d{number},{mode}",
            "-device",
            f"virtio-blk-pci,drive=d{number}",
        ]
    subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, timeout=DEADLINE_S)
    return log.read_text(encoding="utf-8", errors="replace")

"""Kernel, initrd and root of an integration server that runs as a virtual machine, cut out of the tree that it boots.

The initrd has one thing to do, to mount the tree's own /usr, so it is a few programs of the tree and the kernel modules
of QEMU's microvm. On an emulated CPU each program that starts costs 20 to 50 ms: few of them, and nothing is unpacked.
"""

import lzma
import os
import subprocess
import tempfile
from pathlib import Path

from image.cutting import archive, kernel, libraries

HERE = Path(__file__).parent
FOLDER = "usr/lib/alpha-ren/guest"
MODULES = ("virtio_mmio", "virtio_blk", "erofs", "qemu_fw_cfg", "virtio_net", "button", "evdev")
"""Transport, /usr, credentials, eth0, and the power button. The serial port of the journal is built in."""
PROGRAMS = ("usr/bin/dash", "usr/bin/kmod", "usr/bin/mount", "usr/sbin/switch_root")
LINKS = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "sbin": "usr/sbin",
    "usr/bin/sh": "dash",
    # Where the kernel does not find it: it would start it for each algorithm that it asks for and does not have.
    "modprobe": "usr/bin/kmod",
}
MOUNT_POINTS = ("code", "dev", "proc", "run", "sys", "sysroot")
INDICES = ("modules.dep.bin", "modules.alias.bin", "modules.symbols.bin", "modules.builtin.bin", "modules.softdep")
MERGED = ("bin", "lib", "lib64", "sbin")
ROOT_FOLDERS = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "var/tmp")
GENERATORS = "usr/lib/systemd/system-generators"
ACCOUNTS = {
    "passwd": "root:x:0:0::/root:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "group": "root:x:0:\ntty:x:5:\nsystemd-journal:x:402:\nnogroup:x:65534:\n",
}
"""Those that PID 1 and the journal ask for; the server has a user of its own for as long as it runs."""


def write(tree: Path) -> None:
    """Put the guest's kernel, initrd and root into the tree."""
    folder = tree / FOLDER
    (modules,) = (tree / "usr/lib/modules").iterdir()
    write_root(tree, folder / "root")
    (folder / "vmlinux").write_bytes(kernel.unpacked((modules / "vmlinuz").read_bytes()))
    (folder / "initrd").write_bytes(archive.write(initrd(tree, modules)))


def write_root(tree: Path, root: Path) -> None:
    """Make what the guest has around /usr: copied into memory at each of its boots, so it is mostly links."""
    for name in ROOT_FOLDERS:
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for name in MERGED:
        (root / name).symlink_to(f"usr/{name}")
    (root / "var/run").symlink_to("../run")
    for entry in (tree / "usr/share/alpha-ren/etc").iterdir():
        (root / "etc" / entry.name).symlink_to(f"../usr/share/alpha-ren/etc/{entry.name}")
    for name, text in ACCOUNTS.items():
        (root / "etc" / name).write_text(text)
    # Empty: a machine id is made, and yet this is no first boot, at which systemd would go through all units there are.
    (root / "etc/machine-id").touch()
    masked = root / "etc/systemd"
    for generator in (tree / GENERATORS).iterdir():
        mask(masked / "system-generators" / generator.name)
    # The root is in memory already.
    mask(masked / "system/tmp.mount")


def mask(path: Path) -> None:
    """Hide what systemd would take from /usr under the same name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/dev/null")


def initrd(tree: Path, modules: Path) -> dict[str, archive.File]:
    """Return what is in the initrd, by path."""
    files = {name: archive.File(archive.FOLDER) for name in MOUNT_POINTS}
    files |= {name: archive.link(target) for name, target in LINKS.items()}
    programs = [tree / name for name in PROGRAMS]
    for path in (*programs, *libraries.needed(tree, programs)):
        name = str(path.relative_to(tree))
        files[name] = archive.link(os.readlink(path)) if path.is_symlink() else archive.program(path.read_bytes())
    files |= {f"usr/lib/modules/{modules.name}/{name}": file for name, file in drivers(modules).items()}
    files["etc/fstab"] = archive.data((HERE / "fstab").read_bytes())
    files["init"] = archive.program((HERE / "init").read_bytes())
    return files


def drivers(modules: Path) -> dict[str, archive.File]:
    """Return the kernel modules, unpacked, and the index that modprobe reads."""
    files = {flat(file): unpacked(modules / file) for file in chosen(MODULES, (modules / "modules.dep").read_text())}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "lib/modules" / modules.name
        place.mkdir(parents=True)
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            (place / name).touch()
        for name, content in files.items():
            (place / name).write_bytes(content)
        subprocess.run(["depmod", "--basedir", scratch, modules.name], check=True, timeout=60)
        files |= {name: (place / name).read_bytes() for name in INDICES if (place / name).exists()}
    return {name: archive.data(content) for name, content in files.items()}


def chosen(wanted: tuple[str, ...], index: str) -> list[str]:
    """Return the files of the `wanted` modules and of those they need; `index` is the text of modules.dep: on each line
    a module's file, a colon, and the files it needs.
    """
    needs = {}
    for line in index.splitlines():
        file, _, others = line.partition(":")
        needs[file] = others.split()
    files = {flat(file).removesuffix(".ko").replace("-", "_"): file for file in needs}
    found = [files[name] for name in wanted]
    return list(dict.fromkeys(each for file in found for each in (file, *needs[file])))


def flat(module: str) -> str:
    """Return a module's name in the initrd, which has no folders and nothing packed."""
    return Path(module).name.removesuffix(".xz")


def unpacked(module: Path) -> bytes:
    """Return a module as the kernel takes it."""
    content = module.read_bytes()
    return lzma.decompress(content) if module.suffix == ".xz" else content

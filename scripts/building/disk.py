"""The disk image of a hardware profile: ESP with signed boot chain, /usr with dm-verity."""

import shutil
from pathlib import Path

from appliance import hwprofile
from appliance.hwprofile import HardwareProfile
from scripts.building import inputs, keys, mkosirun, paths, publish, space, tree

# What every profile needs between the firmware and /usr, and to make /var; the profile adds what reaches its disk.
INITRD_MODULES = ("autofs4", "dm-mod", "dm-verity", "efivarfs", "erofs", "ext4", "loop")
INITRD_INPUTS = ("image/cutting", "image/initrd", "scripts/building/disk.py")


def folder(profile: str) -> Path:
    """Where the images of a profile are."""
    return paths.IMAGES / profile


def path(profile: str) -> Path:
    """The finished disk image."""
    return folder(profile) / "disk.raw"


def digest(profile: str) -> str:
    """What the disk image is made from."""
    signing = keys.folder()
    certificates = [(signing / f"{name}.crt").read_text() for name in keys.NAMES]
    return inputs.digest(inputs.FIRMWARE, profile, inputs.version(), *certificates)


def build(profile: str) -> Path:
    """Makes the disk image when it is not up to date, and returns its path."""
    hardware = hwprofile.load(paths.REPOSITORY / f"hwprofiles/{profile}.toml")
    output, wanted = path(profile), digest(profile)
    if publish.up_to_date(output, wanted):
        return output
    space.require(paths.BUILD, 2500, "Building the disk image")
    root = tree.build(profile)
    initrd = build_initrd(profile, root)
    code = paths.MKOSI / "code"
    gather_code(code)
    mkosirun.build(
        "disk",
        "Building the disk image",
        f"--base-tree={root}",
        f"--extra-tree={code}:/usr/lib/alpha-ren",
        f"--initrd={initrd}",
        f"--image-version={inputs.version()}",
        *kernel_arguments(hardware),
        *signing_arguments(),
    )
    folder(profile).mkdir(parents=True, exist_ok=True)
    publish.publish(mkosirun.OUT / "disk.raw", output, wanted)
    return output


def build_initrd(profile: str, root: Path) -> Path:
    """Makes the initrd when the tree that it is cut out of, or what cuts it, changed."""
    output = paths.MKOSI / f"initrd-{profile}.cpio.zst"
    wanted = inputs.digest(INITRD_INPUTS, tree.digest(profile))
    if not publish.up_to_date(output, wanted):
        mkosirun.build("initrd", "Building the initrd", f"--base-tree={root}")
        publish.publish(mkosirun.OUT / "initrd.cpio.zst", output, wanted)
    return output


def gather_code(target: Path) -> None:
    """Copies the packages that run on the box, without what Python cached beside them."""
    publish.remove(target)
    for package in ("appliance", "firstboot"):
        shutil.copytree(paths.REPOSITORY / package, target / package, ignore=shutil.ignore_patterns(*inputs.IGNORED))


def kernel_arguments(hardware: HardwareProfile) -> list[str]:
    """What the profile says about kernel and initrd, as mkosi options."""
    modules = "|".join(sorted({*INITRD_MODULES, *hardware.kernel.initrd_modules}))
    return [
        "--kernel-modules-initrd-exclude=.*",
        f"--kernel-modules-initrd-include=/({modules.replace('_', '[-_]')})\\.ko",
        *(f"--kernel-command-line={option}" for option in hardware.kernel_options),
    ]


def signing_arguments() -> list[str]:
    """The keys, as mkosi options."""
    signing = keys.folder()
    return [
        f"--secure-boot-key={signing}/secure-boot.key",
        f"--secure-boot-certificate={signing}/secure-boot.crt",
        f"--verity-key={signing}/verity.key",
        f"--verity-certificate={signing}/verity.crt",
    ]

"""The root tree of a hardware profile: all of the firmware but our code, which the disk image and the lab lay in."""

from pathlib import Path

from appliance import hwprofile
from appliance.hwprofile import HardwareProfile
from scripts.building import inputs, mkosirun, paths, publish, space, wheels

INPUTS = (
    "image/cutting",
    "image/tools",
    "image/tree",
    "requirements/box.lock",
    "scripts/building/tree.py",
    "scripts/building/wheels.py",
)


def path(profile: str) -> Path:
    """Where the tree is: a link to a directory that stays while it is in use."""
    return paths.TREES / profile


def origins(profile: str) -> Path:
    """The file that says which Debian package the tree's files are from, as JSON."""
    return paths.TREES / f"{profile}.packages.json"


def digest(profile: str) -> str:
    """What the tree is made from."""
    return inputs.digest([*INPUTS, f"hwprofiles/{profile}.toml"])


def build(profile: str) -> Path:
    """Makes the tree when it is not up to date, and returns the directory it is in."""
    hardware = hwprofile.load(paths.REPOSITORY / f"hwprofiles/{profile}.toml")
    link, wanted = path(profile), digest(profile)
    if publish.up_to_date(link, wanted):
        return link.resolve()
    space.require(paths.BUILD, 3000, "Building the root tree")
    own = paths.MKOSI / "profile"
    write_profile(hardware, own)
    mkosirun.build(
        "tree",
        "Building the root tree",
        f"--package={hardware.kernel.package}",
        f"--extra-tree={own}",
        f"--extra-tree={wheels.unpack()}:/usr/lib/alpha-ren/site-packages",
        "--image-id=alpha-ren",
        f"--image-version={inputs.version()}",
    )
    paths.TREES.mkdir(parents=True, exist_ok=True)
    publish.publish(mkosirun.OUT / "tree.packages.json", origins(profile), wanted)
    return publish.publish_directory(mkosirun.OUT / "tree", link, wanted)


def write_profile(hardware: HardwareProfile, tree: Path) -> None:
    """Writes what the profile puts into /usr: itself, the screens on its consoles, its watchdog."""
    publish.remove(tree)
    source = paths.REPOSITORY / f"hwprofiles/{hardware.name}.toml"
    _write(tree / "usr/share/alpha-ren/hwprofile.toml", source.read_text())
    wants = tree / "usr/lib/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    for console in hardware.consoles:
        (wants / f"alpha-ren-screen@{console.device}.service").symlink_to("../alpha-ren-screen@.service")
    if hardware.watchdog:
        _write(
            tree / "usr/lib/systemd/system.conf.d/60-watchdog.conf",
            f"[Manager]\nRuntimeWatchdogSec={hardware.watchdog.timeout_s}s\n",
        )


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)

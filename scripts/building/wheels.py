"""The appliance's Python dependencies: the wheels of requirements/box.lock for the firmware's Python, unpacked."""

from pathlib import Path

from scripts.building import command, inputs, paths, publish

PYTHON_VERSION = "3.13"
LOCK = "requirements/box.lock"

# glibc of the firmware's Debian release is newer than all of these.
_PLATFORMS = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
_LEGACY_PLATFORMS = ("manylinux2014", "manylinux2010", "manylinux1")


def unpack() -> Path:
    """The folder with the unpacked wheels; made when it is not up to date."""
    folder = paths.MKOSI / "site-packages"
    digest = inputs.digest([LOCK], PYTHON_VERSION, *_selection())
    if publish.up_to_date(folder, digest):
        return folder
    lock = str(paths.REPOSITORY / LOCK)
    pip = [str(paths.VENV / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    cache = ["--cache-dir", str(paths.PIP_CACHE)]
    paths.WHEELS.mkdir(parents=True, exist_ok=True)
    command.run(
        "Downloading the appliance's Python packages",
        [*pip, "download", *cache, *_selection(), "--requirement", lock, "--dest", str(paths.WHEELS)],
        log="wheels-download",
    )
    partial = folder.with_name("site-packages.partial")
    publish.remove(partial)
    offline = ["--no-index", "--find-links", str(paths.WHEELS)]
    command.run(
        "Unpacking the appliance's Python packages",
        [*pip, "install", *offline, *_selection(), "--no-compile", "--target", str(partial), "--requirement", lock],
        log="wheels-unpack",
        # An index or folder that this machine's own pip configuration names has no say in what goes into the firmware.
        environment={"PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""},
    )
    for name in ("bin", "share"):
        publish.remove(partial / name)
    publish.publish(partial, folder, digest)
    return folder


def _selection() -> list[str]:
    names = [*(f"manylinux_{version}" for version in _PLATFORMS), *_LEGACY_PLATFORMS]
    return [
        *("--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"),
        f"--python-version={PYTHON_VERSION}",
        *(f"--platform={name}_x86_64" for name in names),
    ]

"""The hardware profile: what one model of hardware is like.

The build reads it, and so does the box, as /usr/share/alpha-ren/hwprofile.toml. Every field is documented in
hwprofiles/README.md. Memory and disk are in MiB (`_mb`), time is in seconds (`_s`).
"""

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from appliance.errors import NOT_DECODED, InvalidInput

CURRENT_VERSION = 1

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
Module = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
KernelOption = Annotated[str, Meta(pattern=r"^[!-~]+$")]
CpuSet = Annotated[str, Meta(pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")]
"""CPUs as systemd's AllowedCPUs= takes them: `0`, `0-3`, `0,2-3`."""

BusAddress = Annotated[str, Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z:._-]*$")]
"""Where something is plugged in, as a part of its path in sysfs: `0000:03:00.0` on PCI, `1-1.2:1.0` on USB."""
MacAddress = Annotated[str, Meta(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){2,5}$")]
"""A MAC address or its first octets (three name the maker), lower case."""

Role = Literal["uplink", "cluster", "management"]


class InvalidProfile(InvalidInput):
    """The hardware profile does not validate; nothing is built from it, and a box refuses to start with it."""

    code = "invalid-hwprofile"
    hint = "Correct the named field; hwprofiles/README.md documents each one, and unknown fields are errors."


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    pass


class Kernel(_Section, frozen=True):
    """Which kernel is in the image, what its initrd must carry to reach the disk, and what else it is told."""

    package: Literal["linux-image-cloud-amd64", "linux-image-amd64"]
    initrd_modules: tuple[Module, ...]
    command_line: tuple[KernelOption, ...] = ()


class Nic(_Section, frozen=True):
    """Which network cards have a role: those that all of `path`, `mac` and `driver` fit, as far as they are given.

    With `place` it is one of them, in the order of their bus addresses.
    """

    role: Role
    path: BusAddress | None = None
    mac: MacAddress | None = None
    driver: Module | None = None
    place: Annotated[int, Meta(ge=0, le=15)] | None = None

    @property
    def marks(self) -> tuple[str | None, str | None, str | None]:
        """What is asked of a card, wherever it stands in their order."""
        return self.path, self.mac, self.driver


class Disk(_Section, frozen=True):
    """The disk that the image is written to."""

    minimum_mb: Annotated[int, Meta(ge=2560)]


class Console(_Section, frozen=True):
    """A console that shows the local screen; a serial one has a speed."""

    device: Annotated[str, Meta(pattern=r"^(tty[1-9]|ttyS[0-9])$")]
    speed: Literal[9600, 19200, 38400, 57600, 115200] | None = None

    @property
    def kernel_option(self) -> str:
        """The kernel's `console=` for it (kernel-parameters.txt): a virtual terminal is always tty0 there."""
        return f"console={self.device},{self.speed}n8" if self.speed else "console=tty0"


class Watchdog(_Section, frozen=True):
    """The hardware watchdog: without a sign of life for this long the machine is reset."""

    timeout_s: Annotated[int, Meta(ge=10, le=600)]


class Budget(_Section, frozen=True):
    """CPUs and memory that the model has, and how the network-bound and the CPU-bound parts share them."""

    cpus: Annotated[int, Meta(ge=1, le=512)]
    memory_mb: Annotated[int, Meta(ge=1024)]
    network_cpus: CpuSet
    arsrv_cpus: CpuSet
    arsrv_memory_mb: Annotated[int, Meta(ge=64)]


class HardwareProfile(_Section, frozen=True):
    """The whole document."""

    version: int
    name: Name
    description: Annotated[str, Meta(min_length=1, max_length=100)]
    kernel: Kernel
    nics: Annotated[tuple[Nic, ...], Meta(min_length=1)]
    disk: Disk
    consoles: Annotated[tuple[Console, ...], Meta(min_length=1)]
    budget: Budget
    watchdog: Watchdog | None = None

    @property
    def kernel_options(self) -> tuple[str, ...]:
        """What the profile adds to the kernel command line; the last console is /dev/console."""
        return (*(console.kernel_option for console in self.consoles), *self.kernel.command_line)


def parse(text: str) -> HardwareProfile:
    """Return the profile in `text`; raise InvalidProfile with the field's path where it does not validate."""
    try:
        profile = msgspec.toml.decode(text.encode(), type=HardwareProfile)
    except NOT_DECODED as error:
        raise InvalidProfile(f"The hardware profile is not valid: {error}.") from error
    _check(profile)
    return profile


def load(path: Path) -> HardwareProfile:
    """Return the profile in the file at `path`, whose name must be the profile's; raise InvalidProfile."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.toml"))) or "none"
        raise InvalidProfile(
            f"There is no hardware profile {path.stem}.", hint=f"Profiles in {path.parent}: {known}."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidProfile(f"The hardware profile at {path} cannot be read: {error}.") from error
    return parse(text)


def cpus_of(cpu_set: str) -> frozenset[int]:
    """Return the CPU numbers in a set such as `0,2-3`."""
    numbers: set[int] = set()
    for part in cpu_set.split(","):
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def _check(profile: HardwareProfile) -> None:
    if profile.version != CURRENT_VERSION:
        raise InvalidProfile(
            f"The hardware profile has version {profile.version}, this build reads {CURRENT_VERSION} - at `$.version`."
        )
    _check_nics(profile.nics)
    _check_consoles(profile.consoles)
    for option in profile.kernel.command_line:
        if re.match(r"(root|rw|ro|usrhash|mount\.usr|init|console)(=|$)", option):
            raise InvalidProfile(f"`{option}` belongs to the image, not to a profile - at `$.kernel.command_line`.")
    _check_budget(profile.budget)


def _check_nics(nics: tuple[Nic, ...]) -> None:
    roles = [nic.role for nic in nics]
    if "uplink" not in roles:
        raise InvalidProfile("A network card must have the role `uplink` - at `$.nics`.")
    for role in ("cluster", "management"):
        if roles.count(role) > 1:
            raise InvalidProfile(f"At most one network card may have the role `{role}` - at `$.nics`.")
    for number, nic in enumerate(nics):
        if not any(nic.marks) and nic.place is None:
            raise InvalidProfile(f"A network card needs a path, a MAC, a driver or a place - at `$.nics[{number}]`.")
        for other in nics[:number]:
            if other.marks == nic.marks and (None in (other.place, nic.place) or other.place == nic.place):
                hint = "Tell them apart by `path` or `mac`, or give each a `place` of its own."
                raise InvalidProfile(f"Two roles name the same network card - at `$.nics[{number}]`.", hint=hint)


def _check_consoles(consoles: tuple[Console, ...]) -> None:
    if len({console.device for console in consoles}) != len(consoles):
        raise InvalidProfile("A console is named twice - at `$.consoles`.")
    for console in consoles:
        if console.device.startswith("ttyS") != (console.speed is not None):
            raise InvalidProfile(f"{console.device}: only a serial console has a speed - at `$.consoles`.")


def _check_budget(budget: Budget) -> None:
    for field, cpu_set in (("network_cpus", budget.network_cpus), ("arsrv_cpus", budget.arsrv_cpus)):
        if not cpus_of(cpu_set) or max(cpus_of(cpu_set)) >= budget.cpus:
            raise InvalidProfile(f"`{cpu_set}` names a CPU beyond the {budget.cpus} there are - at `$.budget.{field}`.")
    if budget.arsrv_memory_mb * 2 > budget.memory_mb:
        raise InvalidProfile("Two ARSRVs must fit in the memory - at `$.budget.arsrv_memory_mb`.")

"""Debian packages that the host needs, by what is going to be done with them."""

import os
import subprocess

from scripts.building import command
from scripts.building.failure import Failure

BASE = ("ca-certificates", "python3-venv")

# What `make run` needs stays small; each line says what it is for.
NEEDED: dict[str, tuple[str, ...]] = {
    "image": BASE,
    "run": (
        *BASE,
        "ovmf",  # UEFI firmware
        "qemu-system-x86",  # the virtual machine
        "qemu-utils",  # its disk
    ),
    "lab": (
        *BASE,
        "dnsmasq-base",  # DHCP of the lab's LANs
        "erofs-utils",  # disks of virtual machines in the lab
        "iproute2",
        "nftables",
        "systemd-container",  # systemd-nspawn
    ),
}
NEEDED["chaos"] = (
    *BASE,
    "libfaketime",  # moves the broker's wall clock
    "python3-pyfuse3",  # the disk that loses what was not synced
)
NEEDED["bench"] = tuple(sorted({*NEEDED["run"], *NEEDED["lab"]}))
NEEDED["test"] = tuple(
    sorted(
        {
            *NEEDED["bench"],
            *NEEDED["chaos"],
            "chromium",  # the browser ring
            "fonts-dejavu-core",  # what its pictures are written with
            "openssl",
            "wireguard-tools",  # an outside peer of arvpn
        }
    )
)


def install(purpose: str) -> None:
    """Installs what is missing for a purpose; does nothing, and needs no root, when everything is there."""
    missing = [name for name in NEEDED[purpose] if not installed(name)]
    if not missing:
        return
    try:
        update, get = (
            command.as_root(["apt-get", "update", "--quiet"]),
            command.as_root(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]),
        )
    except Failure as failure:
        raise Failure(failure.code, f"Packages are missing on this host: {' '.join(missing)}.", failure.hint) from None
    print(f"Packages to install on this host: {' '.join(missing)}", flush=True)
    if os.geteuid() != 0:
        _ask_for_password()
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    command.run("Fetching the package lists", update, log="apt-update", environment=environment, limit_s=300)
    command.run("Installing packages", get, log="apt-install", environment=environment)


def installed(name: str) -> bool:
    """Whether dpkg has the package, or another that provides it, configured."""
    answer = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", name],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return answer.returncode == 0 and answer.stdout.startswith("ii")


def _ask_for_password() -> None:
    """Lets sudo ask in the open, before its output goes to a log."""
    if subprocess.run(["sudo", "--validate"], check=False, timeout=300).returncode != 0:
        raise Failure(
            "sudo-refused", "sudo did not let this user become root.", "Run the same command as root, or allow sudo."
        )

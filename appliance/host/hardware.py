"""The machine's network cards, from the kernel, udev and sysfs (rtnetlink(7), udev(7), sysfs(5))."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyudev

from appliance.host.dump import Link

BUSES = Path("/sys/bus")
"""Shows every device, also one whose network card is in another namespace."""

UDEV = Path("/run/udev/control")
"""Is there while udevd runs; in a container it does not."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A network card: its name on the host, its own MAC address, and where it is plugged in (its device in sysfs).

    Driver and path are empty where the system does not tell, as in a container. `held_in` is the namespace that it was
    moved into, `held_as` its name there.
    """

    name: str
    mac: str
    driver: str = ""
    path: str = ""
    held_in: str = ""
    held_as: str = ""


def card(name: str, link: Link, held_in: str = "", buses: Path = BUSES) -> Card:
    """Return what is known of the card behind a link, wherever it was moved. Blocks on sysfs."""
    device = buses / link.bus / "devices" / link.device
    held_as = link.name if held_in else ""
    if not (link.bus and device.exists()):
        return Card(name=name, mac=link.own_mac, held_in=held_in, held_as=held_as)
    driver = (device / "driver").resolve().name if (device / "driver").exists() else ""
    path = str(device.resolve())
    return Card(name=name, mac=link.own_mac, driver=driver, path=path, held_in=held_in, held_as=held_as)


def settled(name: str) -> bool:
    """Whether udevd is done with a card: before, it may yet give it another name. Blocks on sysfs.

    One that is not there under this name has just got another, or is gone; an event tells of either.
    """
    if not UDEV.exists():
        return True
    try:
        return bool(pyudev.Devices.from_name(pyudev.Context(), "net", name).is_initialized)
    except pyudev.DeviceNotFoundError:
        return False
    except OSError:
        return True


class CardEvents:
    """Cards that come, go and get another name. `happened` is called with a sentence."""

    def __init__(self, happened: Callable[[str], None]) -> None:
        self._happened = happened
        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev" if UDEV.exists() else "kernel")
        self._monitor.filter_by("net")
        self._monitor.start()
        asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._read)

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._monitor.fileno())

    def _read(self) -> None:
        while (device := self._monitor.poll(timeout=0)) is not None:
            if not device.sys_name.startswith("ar-"):
                self._happened(f"network card {device.sys_name}: {device.action}")

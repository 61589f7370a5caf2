"""The machine's network cards, from udev and sysfs (udev(7), sysfs(5))."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyudev

UDEV = Path("/run/udev/control")
"""Is there while udevd runs; in a container it does not."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A network card in the host namespace. `path` is where it is plugged in (its device in sysfs).

    Driver and path are empty where the system does not tell, as in a container.
    """

    name: str
    mac: str
    driver: str = ""
    path: str = ""


def told(name: str, mac: str) -> Card | None:
    """Return what udev and sysfs know of a card, None while udevd is still at it: it may yet give it another name.

    Blocks.
    """
    try:
        device = pyudev.Devices.from_name(pyudev.Context(), "net", name)
    except (pyudev.DeviceNotFoundError, OSError):
        return Card(name=name, mac=mac)
    if UDEV.exists() and not device.is_initialized:
        return None
    hardware = Path(device.sys_path) / "device"
    if not (hardware / "driver").exists():
        return Card(name=name, mac=mac)
    return Card(name=name, mac=mac, driver=(hardware / "driver").resolve().name, path=str(hardware.resolve()))


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

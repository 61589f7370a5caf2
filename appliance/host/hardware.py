"""The machine's network cards, from udev and sysfs (udev(7), sysfs(5))."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyudev


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A network card in the host namespace: `path` is udev's ID_PATH (where it is plugged in), empty for a virtual
    one.
    """

    name: str
    driver: str
    mac: str
    path: str


def details(name: str) -> tuple[str, str]:
    """Return driver and path of a card in the host namespace, empty where the system does not tell (in a container).

    Blocks.
    """
    try:
        device = pyudev.Devices.from_name(pyudev.Context(), "net", name)
    except (pyudev.DeviceNotFoundError, OSError):
        return "", ""
    driver = Path(device.sys_path) / "device" / "driver"
    return driver.resolve().name if driver.exists() else "", device.properties.get("ID_PATH", "")


class CardEvents:
    """Cards that come, go and get another name. `happened` is called with a sentence."""

    def __init__(self, happened: Callable[[str], None]) -> None:
        self._happened = happened
        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
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

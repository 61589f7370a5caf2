"""The machine's network cards, from udev and sysfs (udev(7), sysfs(5))."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyudev



class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A network card in the host namespace: `path` is udev's ID_PATH (where it is plugged in), empty for a virtual one."""

    name: str
    driver: str
    mac: str
    path: str


def cards() -> tuple[Card, ...]:
    """Return the cards of the host namespace by name; loopback, bridges and what is below them are none. Blocks."""
    found = []
    for device in pyudev.Context().list_devices(subsystem="net"):
        sysfs = Path(device.sys_path)
        # ARPHRD_ETHER is 1; a bridge and a port of one are the supervisor's own.
        if _read(sysfs / "type") != "1" or (sysfs / "bridge").exists() or (sysfs / "master").exists():
            continue
        driver = sysfs / "device" / "driver"
        found.append(
            Card(
                name=device.sys_name, mac=_read(sysfs / "address"),
                driver=driver.resolve().name if driver.exists() else "",
                path=device.properties.get("ID_PATH", ""),
            )
        )
    return tuple(sorted(found, key=lambda card: card.name))


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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""

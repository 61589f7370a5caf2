"""A guest without a hypervisor: another network namespace at the far end of an instance's TAP device.

Frames are carried from one device to the other as QEMU does it, so both ends are the kernel's own.
"""

import asyncio
import fcntl
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from appliance.host.netns import Namespaces
from appliance.topology import Tap
from tests.unit.host.place import said_in

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME = 65536


@asynccontextmanager
async def plugged(near: Namespaces, tap: Tap, far: Namespaces, mac: str, network: str) -> AsyncIterator[str]:
    """Give the name of a namespace in `far` that is a guest on `tap`, set up by the `ip -batch` text `network`."""
    words = far.directory / "network"
    guest = "guest"
    await far.call(lambda: far.make(guest))
    try:
        here = await near.call(lambda: _attached(near, tap.namespace, tap.name))
        there = await far.call(lambda: _attached(far, guest, "eth0"))
        loop = asyncio.get_running_loop()
        for source, target in ((here, there), (there, here)):
            loop.add_reader(source, _carry, source, target)
        try:
            await said_in(far, guest, "ip", "link", "set", "eth0", "address", mac)
            words.write_text(network)
            await said_in(far, guest, "ip", "-batch", str(words))
            yield guest
        finally:
            for descriptor in (here, there):
                loop.remove_reader(descriptor)
                os.close(descriptor)
    finally:
        await far.call(lambda: far.remove(guest))


def _attached(namespaces: Namespaces, name: str, tap: str) -> int:
    """Return a descriptor of a TAP device, made where there is none (Documentation/networking/tuntap.rst)."""
    with namespaces.inside(name):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def _carry(source: int, target: int) -> None:
    try:
        os.write(target, os.read(source, FRAME))
    except OSError:
        return  # a device that is down takes no frames, as a cable that is out

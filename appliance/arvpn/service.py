"""The process beside the WireGuard interface: it says whether the VPN works, which the kernel does not by itself.

A kernel without WireGuard takes nothing from the rest of the machine: the unit is active and says what is missing.
"""

import asyncio
import logging
import socket
import sys

from appliance import notify
from appliance.arvpn.spec import Settings
from appliance.contracts.service import load

log = logging.getLogger(__name__)

LOOK_S = 5.0
UNSUPPORTED = "There is no VPN: this kernel has no WireGuard, or the interface has not been made."


def status(interface: str, peers: int, present: set[str]) -> str:
    """Return one sentence on the VPN, given the names of the interfaces that are there."""
    if interface not in present:
        return UNSUPPORTED
    return f"WireGuard is up on {interface} for {peers} peer{'' if peers == 1 else 's'}."


async def main() -> None:
    """Look at the interface every few seconds until cancelled, and say so when it comes or goes."""
    settings = load().parse_settings(Settings)
    last = ""
    while True:
        now = status(settings.interface, settings.peers, {name for _, name in socket.if_nameindex()})
        if now != last:
            log.log(logging.WARNING if now == UNSUPPORTED else logging.INFO, "%s", now)
            notify.ready(now)
            last = now
        await asyncio.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(notify.run(main))

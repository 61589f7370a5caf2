"""What a service tells systemd about itself (sd_notify(3)): ready, stopping, status, alive."""

import asyncio
import os
import socket


def tell(state: str) -> None:
    """Send one datagram of `VARIABLE=value` lines to the service manager; does nothing outside a unit that listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect(address)
        channel.sendall(state.encode())


def ready() -> None:
    """Say that start-up is finished."""
    tell("READY=1")


def stopping() -> None:
    """Say that the service is shutting down."""
    tell("STOPPING=1")


def status(sentence: str) -> None:
    """Say in one sentence what the service is doing; `systemctl status` shows it."""
    tell(f"STATUS={sentence}")


def alive() -> None:
    """Feed the watchdog once."""
    tell("WATCHDOG=1")


def watchdog_interval_s() -> float | None:
    """Return how often to feed the watchdog, half of what systemd allows, or None where it does not watch us."""
    allowed_us = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not allowed_us or (pid and int(pid) != os.getpid()):
        return None
    return int(allowed_us) / 2_000_000


async def keep_watchdog() -> None:
    """Feed the watchdog from the event loop, so that a loop that hangs is noticed; returns at once when nobody watches."""
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        alive()
        await asyncio.sleep(interval_s)

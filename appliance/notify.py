"""How a process of the appliance lives under systemd: it says when it is ready, feeds its watchdog, and stops cleanly.

The protocol is sd_notify(3): datagrams to the socket in $NOTIFY_SOCKET. Without that variable nothing is said.
"""

import asyncio
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from appliance.errors import ApplianceError

log = logging.getLogger(__name__)


def notify(*states: str) -> None:
    """Tell systemd one or more assignments, for example `READY=1` or `STATUS=…`; does nothing outside a unit."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        _out().sendto("\n".join(states).encode(), address)
    except OSError as error:
        log.warning("systemd does not hear %s: %s", states[0], error)


@functools.cache
def _out() -> socket.socket:
    """Kept from the first word on: a process that has no more descriptors must still feed its watchdog, and stop."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def ready(status: str = "") -> None:
    """Tell systemd that this process does its work from now on."""
    notify("READY=1", *((f"STATUS={status}",) if status else ()))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run `main` until it ends or SIGTERM or SIGINT comes, feeding the watchdog; return the process's exit status.

    At a signal `main` is cancelled and has the unit's stop time to clean up; that is exit status 0. An ApplianceError
    is one line in the journal, any other exception a traceback; both are exit status 1.
    """
    _log_to_journal()
    status = 0
    try:
        asyncio.run(_until_signal(main))
    except* ApplianceError as errors:
        for error in _leaves(errors):
            log.critical("%s", error)
        status = 1
    except* Exception as errors:
        log.critical("the process ends because of an unexpected error", exc_info=errors)
        status = 1
    return status


def _leaves(group: BaseExceptionGroup[ApplianceError]) -> Iterator[ApplianceError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _until_signal(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(main())
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            notify("STOPPING=1")
            work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    watchdog = asyncio.create_task(_feed_watchdog())
    try:
        await work
    except asyncio.CancelledError:
        if not stopping:
            raise
    finally:
        watchdog.cancel()


async def _feed_watchdog() -> None:
    """Say WATCHDOG=1 at a third of the time systemd gives; from the event loop, so that a stuck loop starves it."""
    limit_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    if limit_us <= 0 or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(limit_us / 3_000_000)


class _JournalFormatter(logging.Formatter):
    """Puts the syslog level in front, which the journal understands (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        level = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}.get(record.levelname, 5)
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


def _log_to_journal() -> None:
    handler = logging.StreamHandler(sys.stderr)
    plain = "%(name)s: %(message)s"
    in_journal = "JOURNAL_STREAM" in os.environ
    handler.setFormatter(_JournalFormatter(plain) if in_journal else logging.Formatter(f"%(levelname)s {plain}"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])

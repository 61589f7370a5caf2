"""Asking a running guest's QEMU by its own protocol (QMP); starting and ending it is its keeper's."""

import asyncio
import logging
from contextlib import suppress
from typing import Literal

import msgspec

from appliance.errors import Unavailable

Run = Literal["running", "paused", "other", "away"]
DEADLINE_S = 5.0


class GuestAway(Unavailable):
    """The guest's QEMU does not answer."""

    code = "guest-away"
    hint = "It is started again by itself; `alpha-ren logs INSTANCE` says what happened."


class _Answer(msgspec.Struct):
    """What is read of the reply to `query-status` (QEMU QMP Reference Manual, StatusInfo)."""

    status: str


async def state(path: str) -> Run:
    """Return whether the guest behind the socket at `path` runs, `away` where its QEMU does not answer."""
    try:
        return _run_state(await _ask(path, "query-status"))
    except GuestAway:
        return "away"


async def pause(path: str) -> None:
    """Stop its processors; raise GuestAway."""
    await _ask(path, "stop")


async def resume(path: str) -> None:
    """Let them go on; raise GuestAway."""
    await _ask(path, "cont")


def _run_state(reply: object) -> Run:
    try:
        status = msgspec.convert(reply, _Answer).status
    except msgspec.ValidationError as error:
        raise GuestAway(f"QEMU's answer is not understood: {error}.") from error
    return "running" if status == "running" else "paused" if status == "paused" else "other"


async def _ask(path: str, command: str) -> object:
    # Imported late: on a box without virtual machines nobody needs it, and it takes memory.
    from qemu.qmp import QMPClient, QMPError

    # What goes wrong is said by whoever asked.
    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
    qmp = QMPClient("monitor")
    try:
        async with asyncio.timeout(DEADLINE_S):
            await qmp.connect(path)
            return await qmp.execute(command)
    except (QMPError, OSError, EOFError, TimeoutError) as error:
        raise GuestAway(f"The guest at {path} does not answer: {error or 'no word from it in time'}.") from error
    finally:
        with suppress(QMPError, OSError, EOFError):
            await qmp.disconnect()

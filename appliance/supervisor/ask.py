"""The asking side of the control socket (appliance.contracts.machine describes the wire)."""

import asyncio
import os
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq
import zmq.asyncio

from appliance.contracts.machine import CONTROL_ENDPOINT
from appliance.errors import NOT_DECODED, DeadlinePassed, Problem, Refused, Relayed, Unavailable

T = TypeVar("T")


class SupervisorAway(Unavailable):
    """The supervisor is not there to be asked."""

    code = "supervisor-away"
    hint = "It is started again by itself; `alpha-ren logs supervisor` shows why it stopped."


class SupervisorSilent(DeadlinePassed):
    """The supervisor is there and did not answer in time."""

    code = "supervisor-silent"
    hint = "It may be busy starting components: try again; `alpha-ren logs supervisor` shows what it does."


class NotRoot(Refused):
    """The control socket is for root alone."""

    code = "not-root"
    hint = "Run the command as root on the box."


async def ask(
    call: str,
    kind: type[T],
    body: msgspec.Struct | None = None,
    *,
    endpoint: str = CONTROL_ENDPOINT,
    deadline_s: float = 5.0,
) -> T:
    """Return the supervisor's reply to `call` as `kind`.

    Raises SupervisorAway, SupervisorSilent, NotRoot, and Relayed with whatever the supervisor itself refused it for.
    """
    _look_at(endpoint)
    socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        await socket.send_multipart([call.encode(), b"{}" if body is None else msgspec.json.encode(body)])
        async with asyncio.timeout(deadline_s):
            frames = await socket.recv_multipart()
    except TimeoutError as error:
        raise SupervisorSilent(f"The supervisor did not answer `{call}` within {deadline_s:g} seconds.") from error
    finally:
        socket.close(linger=0)
    return _reply(call, frames, kind)


def _look_at(endpoint: str) -> None:
    """Say at once what ZeroMQ, which reconnects for ever, would never say."""
    path = Path(endpoint.removeprefix("ipc://"))
    if not path.is_socket():
        if not os.access(path.parent, os.X_OK) and path.parent.exists():
            raise NotRoot("Only root may ask the supervisor.")
        raise SupervisorAway("The supervisor is not running.")
    if not os.access(path, os.W_OK):
        raise NotRoot("Only root may ask the supervisor.")


def _reply(call: str, frames: list[bytes], kind: type[T]) -> T:
    try:
        verdict, body = frames
        if verdict != b"ok":
            raise Relayed(msgspec.json.decode(body, type=Problem))
        return msgspec.json.decode(body, type=kind)
    except (ValueError, *NOT_DECODED) as error:
        raise Unavailable(
            f"The supervisor's reply to `{call}` is not understood: {error}.",
            hint="Supervisor and command are of different versions: restart alpha-ren-supervisor.service.",
        ) from error

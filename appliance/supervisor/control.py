"""The answering side of the control socket (appliance.contracts.machine describes the wire)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from appliance.contracts.machine import CONTROL_SOCKET
from appliance.errors import NOT_DECODED, ApplianceError, NotFound, Problem

log = logging.getLogger(__name__)

Call = Callable[[bytes], Awaitable[msgspec.Struct]]
"""Gets the JSON body and returns the reply."""

MOST_AT_ONCE = 16


class Control:
    """Serves `calls` at a Unix socket that only root may use; each request is a task of its own.

    `bound` is set once it can be asked.
    """

    def __init__(self, calls: Mapping[str, Call], path: Path = Path(CONTROL_SOCKET)) -> None:
        self._calls = calls
        self._path = path
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self.bound = asyncio.Event()

    async def serve(self) -> None:
        """Answer until cancelled."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        socket = zmq.asyncio.Context.instance().socket(zmq.ROUTER)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(f"ipc://{self._path}")
            self._path.chmod(0o600)
            self.bound.set()
            async with asyncio.TaskGroup() as group:
                while True:
                    frames = await socket.recv_multipart()
                    await self._room.acquire()
                    group.create_task(self._answer(socket, frames))
        finally:
            socket.close(linger=0)

    async def _answer(self, socket: zmq.asyncio.Socket, frames: list[bytes]) -> None:
        try:
            # A REQ socket puts an empty frame before its request, and wants it back.
            envelope, request = (frames[:2], frames[2:]) if frames[1:2] == [b""] else (frames[:1], frames[1:])
            reply = await self._reply(request)
            await socket.send_multipart([*envelope, *reply])
        finally:
            self._room.release()

    async def _reply(self, request: list[bytes]) -> tuple[bytes, bytes]:
        try:
            name = request[0].decode(errors="replace") if request else ""
            call = self._calls.get(name)
            if call is None or len(request) != 2:
                raise NotFound(f"The supervisor has no call `{name}` with {len(request) - 1} bodies.")
            return b"ok", msgspec.json.encode(await call(request[1]))
        except ApplianceError as error:
            return b"error", msgspec.json.encode(error.problem)
        except NOT_DECODED as error:
            problem = Problem(code="invalid-input", message=f"The request is not valid: {error}.", status=400)
            return b"error", msgspec.json.encode(problem)
        except Exception:
            log.exception("a request on the control socket failed")
            problem = Problem(code="internal-error", message="The supervisor failed to answer; its journal says why.")
            return b"error", msgspec.json.encode(problem)

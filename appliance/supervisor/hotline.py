"""The supervisor on the queue: says how the machine is, hears how healthy it is, answers calls.

It mends itself for ever.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NoReturn

import msgspec

from appliance.contracts.letters import CALLS
from appliance.contracts.machine import Confirmation, MachineStatus, Repair
from appliance.contracts.member import Ping, Pong
from appliance.contracts.order import Health
from appliance.contracts.user import Done, PairingAttempt
from appliance.errors import ApplianceError, Unavailable
from appliance.queue.client import Connection, QueueClient, Request

log = logging.getLogger(__name__)

TELL_EVERY_S = 5.0
PING_S = 1.0
AGAIN_S = 2.0
MOST_UNTOLD = 64
RELAY_S = 3600.0
"""A backup takes its time. Where the broker goes away, it is known much sooner."""


class Hotline:
    """`status` says how the machine is, `attempt` judges a pairing code, `heard` gets every word about its health,
    `confirm` keeps a change that is on trial, `revert` undoes it.
    """

    def __init__(
        self,
        status: Callable[[], MachineStatus],
        attempt: Callable[[PairingAttempt], None],
        heard: Callable[[Health], None],
        confirm: Callable[[Confirmation], Awaitable[None]],
        revert: Callable[[Confirmation], Awaitable[None]],
    ) -> None:
        self._status = status
        self._attempt = attempt
        self._heard = heard
        self._keep = confirm
        self._undo = revert
        self._changed = asyncio.Event()
        self._untold: deque[Repair] = deque(maxlen=MOST_UNTOLD)
        self._client: QueueClient | None = None

    def changed(self) -> None:
        """Tell everybody now."""
        self._changed.set()

    def repaired(self, repair: Repair) -> None:
        """Tell everybody of a repair, once there is somebody to tell; of many untold ones the newest."""
        self._untold.append(repair)
        self._changed.set()

    async def run(self, connection: Connection) -> NoReturn:
        """Stay on the queue until cancelled."""
        async with QueueClient(connection) as client:
            self._client = client
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._tell(client))
                    group.create_task(self._hear(client))
                    group.create_task(self._serve(client))
            finally:
                self._client = None
        raise RuntimeError("a task that never ends has ended")

    async def relay(self, call: str, body: bytes) -> msgspec.Struct:
        """Return the broker's reply to one of its own calls, the body of which came as JSON."""
        asked, reply = CALLS[call]
        request = None if asked is None else msgspec.json.decode(body, type=asked)
        if self._client is None or not self._client.connected:
            raise Unavailable("The supervisor is not connected to the queue.")
        return await self._client.call(call, request, reply, deadline_s=RELAY_S)

    async def answers(self, instance: str) -> bool:
        """Return whether an instance answers an application-level ping now; without the queue nobody does."""
        if self._client is None or not self._client.connected:
            return False
        try:
            await self._client.call(f"{instance}.ping", Ping(sent_at=time.time()), Pong, deadline_s=PING_S)
        except ApplianceError:
            return False
        return True

    async def _tell(self, client: QueueClient) -> NoReturn:
        while True:
            self._changed.clear()
            try:
                await client.emit("machine", self._status())
                while self._untold:
                    await client.emit("machine.repaired", self._untold[0])
                    self._untold.popleft()
            except ApplianceError as error:
                log.debug("nobody hears how the machine is: %s", error)
            try:
                async with asyncio.timeout(TELL_EVERY_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _hear(self, client: QueueClient) -> NoReturn:
        while True:
            try:
                async for event in client.events("health"):
                    self._heard(event.decode(Health))
            except ApplianceError as error:
                log.warning("the machine's health is not heard: %s", error)
            await asyncio.sleep(AGAIN_S)

    async def _serve(self, client: QueueClient) -> None:
        for name, handler in (
            ("supervisor.status", self._tell_status),
            ("supervisor.pair", self._pair),
            ("supervisor.confirm", self._confirm),
            ("supervisor.revert", self._revert),
        ):
            while True:
                try:
                    await client.serve(name, handler)
                    break
                except ApplianceError as error:
                    log.warning("%s is not served yet: %s", name, error)
                await asyncio.sleep(AGAIN_S)

    async def _tell_status(self, _request: Request) -> MachineStatus:
        return self._status()

    async def _pair(self, request: Request) -> Done:
        self._attempt(request.decode(PairingAttempt))
        return Done()

    async def _confirm(self, request: Request) -> Done:
        await self._keep(request.decode(Confirmation))
        return Done()

    async def _revert(self, request: Request) -> Done:
        await self._undo(request.decode(Confirmation))
        return Done()

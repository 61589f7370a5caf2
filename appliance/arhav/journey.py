"""The journey check: a message in through 443, through a flow, and back out by HTTP to this process.

It is the appliance's own proof that it does its job: everything between the reverse proxy and a delivery has to work.
"""

import asyncio
import logging
import secrets
import ssl
import time

import aiohttp
import msgspec
from aiohttp import web

from appliance.contracts.flow import Flow, FlowChanged, HttpDelivery, PutFlow, Retry, Set, Webhook
from appliance.contracts.order import Health
from appliance.errors import NOT_DECODED, ApplianceError, Unavailable
from appliance.queue.client import QueueClient

log = logging.getLogger(__name__)

FLOW = "_selftest"
PATH = "/selftest"
DEADLINE_S = 10.0
CONNECT_S = 1.0
WELL_S = 10.0
ILL_S = 0.5
"""Seconds between checks: seldom while all is well; often while not, since readiness at boot waits for it."""


class JourneyFailed(Unavailable):
    """The message did not make its way."""

    code = "journey-failed"


class _Nonce(msgspec.Struct, frozen=True):
    nonce: str
    checked: bool = False


def flow_to(receiver: str) -> Flow:
    """Return the built-in flow that delivers to this process; it has a step, so that stages are part of it."""
    return Flow(
        name=FLOW,
        trigger=Webhook(max_bytes=1024, expires_s=30.0),
        steps=(Set(path="checked", value=True),),
        deliver=HttpDelivery(url=receiver, timeout_s=2.0, retry=Retry(attempts=1000, first_s=0.2, max_s=1.0)),
    )


class Journey:
    """Sends nonces to the webhook at `entry` and waits until they are delivered to its own `application`."""

    def __init__(self, queue: QueueClient, entry: str, receiver: str, tls: ssl.SSLContext | bool) -> None:
        self._queue = queue
        self._entry = entry
        self._receiver = receiver
        self._tls = tls
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._hurry = asyncio.Event()

    def application(self) -> web.Application:
        """Return the HTTP application that the built-in flow delivers to."""
        app = web.Application(client_max_size=4096)
        app.router.add_post(PATH, self._arrive)
        return app

    async def _arrive(self, request: web.Request) -> web.Response:
        try:
            came = msgspec.json.decode(await request.read(), type=_Nonce)
        except NOT_DECODED as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        waiter = self._waiting.get(came.nonce)
        if waiter is not None and came.checked and not waiter.done():
            waiter.set_result(None)
        return web.Response(status=204)  # what nobody waits for any more is done with, too

    async def run(self) -> None:
        """Check and emit `health` until cancelled."""
        timeout = aiohttp.ClientTimeout(total=DEADLINE_S, sock_connect=CONNECT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            last: Health | None = None
            while True:
                health = await self._check(session, put_flow=last is None or not last.ok)
                if last is None or (health.ok, health.detail) != (last.ok, last.detail):
                    log.info("%s", "the journey works" if health.ok else f"the journey does not work: {health.detail}")
                last = health
                try:
                    await self._queue.emit("health", health)
                except Unavailable as error:
                    log.warning("health cannot be published yet: %s", error)
                await self._rest(WELL_S if health.ok else ILL_S)

    def check_soon(self) -> None:
        """Check again without waiting for the next time: something has changed."""
        self._hurry.set()

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._hurry.wait(), seconds)
        except TimeoutError:
            return
        self._hurry.clear()

    async def _check(self, session: aiohttp.ClientSession, *, put_flow: bool) -> Health:
        started = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE_S):
                if put_flow:
                    await self._put_flow()
                await self._travel(session)
        except JourneyFailed as error:
            return Health(at=time.time(), ok=False, detail=error.message)
        except TimeoutError:
            return Health(at=time.time(), ok=False, detail=f"The message did not arrive within {DEADLINE_S:g} s.")
        return Health(at=time.time(), ok=True, journey_s=time.monotonic() - started)

    async def _travel(self, session: aiohttp.ClientSession) -> None:
        nonce = secrets.token_hex(8)
        arrived = self._waiting[nonce] = asyncio.get_running_loop().create_future()
        try:
            body = msgspec.json.encode(_Nonce(nonce))
            headers = {"Content-Type": "application/json"}
            async with session.post(self._entry, data=body, headers=headers, ssl=self._tls) as response:
                if response.status != 202:
                    raise JourneyFailed(f"The way in answered {response.status} instead of 202.")
            await arrived
        except aiohttp.ClientError as error:
            raise JourneyFailed(f"The way in cannot be used: {str(error) or type(error).__name__}.") from error
        finally:
            del self._waiting[nonce]

    async def _put_flow(self) -> None:
        """Make the built-in flow known to the cluster, which keeps it; nothing changes where it is known."""
        try:
            await self._queue.call("arclst.flow.put", PutFlow(flow=flow_to(self._receiver), who=""), FlowChanged)
        except ApplianceError as error:
            raise JourneyFailed(f"The cluster does not take the built-in flow: {error.message}") from error

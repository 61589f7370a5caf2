"""Webhooks: the HTTP server that takes messages in."""

import asyncio
import ipaddress
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
from aiohttp import web

from appliance.arsrv.envelope import Envelope, message_id
from appliance.arsrv.room import Room
from appliance.arsrv.runner import Runner, most_attempts
from appliance.contracts.flow import Flow, stage_address
from appliance.errors import ApplianceError, InvalidInput, NotFound, Problem, Unavailable
from appliance.queue.client import QueueBusy, QueueClient

log = logging.getLogger(__name__)

REQUEST_ID = "X-Alpha-Ren-Request"
"""The reverse proxy sets it on every request, whatever the client sent; only the proxy can reach this server."""

MAX_KEY = 255
MOST_ARRIVING = 64 * 2**20
"""Bytes of messages on their way to the disk, far below what the instance may use."""

PUBLISH_S = 5.0
RETRY_AFTER_S = 1.0

GOODBYES = 3
"""So often the proxy is told that this server leaves. It believes the second time; when it asks again, it has acted."""
LEAVE_S = 3.0
"""The longest that a proxy is waited for which asks no more."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class UnknownFlow(NotFound):
    """There is no flow of that name."""

    code = "unknown-flow"
    hint = "The address is /hooks/NAME with the name of a flow as the portal shows it."


class TooLarge(ApplianceError):
    """The message is larger than its flow takes."""

    code = "message-too-large"
    hint = "Send less in one message, or raise `trigger.max_bytes` of the flow."
    status = 413


class Accepted(msgspec.Struct, frozen=True):
    """The answer to a message that is on disk: its id, and whether it already was there."""

    id: str
    duplicate: bool


class Hooks:
    """Handlers for `POST /hooks/FLOW` and `GET /health`; `inner` is where the appliance's own flows are fed from."""

    def __init__(self, queue: QueueClient, runner: Runner, inner: tuple[str, ...]) -> None:
        self._queue = queue
        self._runner = runner
        self._room = Room(MOST_ARRIVING)
        self._asked = 0
        self._goodbyes = 0
        self._leaving = False
        self._believed = asyncio.Event()
        self._inner = [ipaddress.ip_network(network) for network in inner]

    def application(self) -> web.Application:
        """Return the application; every refusal in it is a problem in JSON."""
        app = web.Application(middlewares=[self._last_words, _problems])
        app.router.add_post("/hooks/{flow}", self.receive)
        app.router.add_get("/health", self.health)
        return app

    async def health(self, _request: web.Request) -> web.Response:
        """Answer 200 while messages can be taken in."""
        self._asked += 1
        if self._leaving:
            self._goodbyes += 1
            if self._goodbyes >= GOODBYES:
                self._believed.set()
            return _refuse(Unavailable("The server is about to stop."))
        self._check_ready()
        return _json(200, {"ok": True})

    async def leave(self) -> None:
        """Have the proxy send nobody here any more, and return when it does so; messages are taken until then.

        Who just closed would break the connections that the proxy keeps, some of them under a request.
        """
        self._leaving = True
        if self._asked:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._believed.wait()

    async def receive(self, request: web.Request) -> web.Response:
        """Answer 202 once the message is on the broker's disk."""
        self._check_ready()
        flow = self._find(request)
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > MAX_KEY:
            raise InvalidInput(f"The Idempotency-Key is longer than {MAX_KEY} characters.")
        with self._room.claim() as take:
            envelope = Envelope(
                id=message_id(flow.name, key, request.headers.get(REQUEST_ID, "")),
                content_type=request.headers.get("Content-Type", "application/octet-stream"),
                received_at=time.time(),
                body=await _read(request, flow.trigger.max_bytes, take),
            )
            published = await self._queue.publish(
                stage_address(flow.name, 0), envelope, id=envelope.id, deadline_s=PUBLISH_S,
                expires_s=flow.trigger.expires_s, max_attempts=most_attempts(flow, 0),
            )  # fmt: skip
        return _json(202, Accepted(envelope.id, published.duplicate))

    @web.middleware
    async def _last_words(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Close the connection after the answer where there will be no other, or the body has not all come.

        (RFC 9112, 9.3.) Who reuses it else, as HAProxy does, may leave out the rest of the body, and the next request
        would be taken for it.
        """
        response = await handler(request)
        if self._leaving or not request.content.is_eof():
            response.force_close()
        return response

    def _check_ready(self) -> None:
        if not self._queue.connected:
            raise Unavailable("The queue is not connected.")
        if not self._runner.knows_flows:
            raise Unavailable("The flows of the cluster are not known yet.")

    def _find(self, request: web.Request) -> Flow:
        name = request.match_info["flow"]
        flow = self._runner.flow(name)
        if flow is None or (name.startswith("_") and not self._from_inside(request)):
            raise UnknownFlow(f"There is no flow named {name[:48]!r}.")
        return flow

    def _from_inside(self, request: web.Request) -> bool:
        """Whether the proxy says that the client is on an inner network."""
        client = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._inner if network.version == address.version)


async def _read(request: web.Request, limit: int, take: Callable[[int], None]) -> bytes:
    """Return the body, having read no more of it than the limit and taken room for it; raise TooLarge, NoRoom."""
    refusal = TooLarge(f"The message is larger than the {limit} bytes its flow takes.")
    if (request.content_length or 0) > limit:
        raise refusal
    parts, size = [], 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > limit:
            raise refusal
        take(len(part))
        parts.append(part)
    return b"".join(parts)


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApplianceError as error:
        if error.problem.status >= 500:
            log.warning("%s %s is answered %d: %s", request.method, request.path, error.problem.status, error)
        return _refuse(error)
    except web.HTTPException as error:
        response = _json(error.status, Problem(code="http-error", message=f"{error.reason}.", status=error.status))
        response.headers.update({name: error.headers[name] for name in ("Allow",) if name in error.headers})
        return response
    except (ConnectionError, web.PayloadAccessError) as error:  # the client went away while it was sending
        return _refuse(InvalidInput(f"The message did not arrive whole: {error}."))
    except Exception:
        log.exception("%s %s failed unexpectedly", request.method, request.path)
        return _refuse(ApplianceError("The server failed to handle this message.", hint="Its journal says why."))


def _refuse(error: ApplianceError) -> web.Response:
    problem = error.problem
    response = _json(problem.status, problem)
    if problem.status == 503:
        wait_s = error.retry_after_s if isinstance(error, QueueBusy) else RETRY_AFTER_S
        response.headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    return response


def _json(status: int, content: object) -> web.Response:
    kind = "application/problem+json" if status >= 400 else "application/json"
    return web.Response(status=status, body=msgspec.json.encode(content), content_type=kind)

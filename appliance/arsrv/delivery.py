"""The last stage of a flow: the message goes out by HTTP."""

import email.utils
import logging
import os
import ssl
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from appliance.arsrv.backoff import Circuit
from appliance.arsrv.envelope import Envelope
from appliance.arsrv.targets import ForbiddenAddress, ForbiddenTarget, Guard
from appliance.contracts.flow import Flow
from appliance.errors import ApplianceError

log = logging.getLogger(__name__)

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
MOST_CIRCUITS = 1000
USER_AGENT = "ALPHA-REN"


class DeliveryFailed(ApplianceError):
    """The target did not take the message this time; `retry_after_s` is what it asked for, 0 when nothing."""

    code = "delivery-failed"
    hint = "It is tried again; check that the target runs and takes this message."
    status = 502

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HttpSender:
    """Sends messages over pooled connections; users' flows and the appliance's own have a pool each.

    A flow whose name starts with an underscore is the appliance's own and may deliver inside the box.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._circuits: dict[tuple[str, str, int], Circuit] = {}

    async def __aenter__(self) -> Self:
        # Each flow's credit bounds its connections, so that one slow target never holds up another.
        factory = self._guard.socket_factory()
        self._outside = _session(aiohttp.TCPConnector(limit=0, socket_factory=factory, ssl=_public_authorities()))
        self._inside = _session(aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._outside.close()
        await self._inside.close()

    async def send(self, flow: Flow, envelope: Envelope) -> None:
        """Return once the target said 2xx; raise DeliveryFailed (try again) or ForbiddenTarget (never will be allowed).

        Waits while the target's circuit is open, without using up an attempt.
        """
        url = URL(flow.deliver.url)
        async with self._circuit(url).attempt() as attempt:
            try:
                await self._send(flow, envelope, url)
            except DeliveryFailed as failure:
                # A refusal (4xx) is of this message; the target is alive, and others may well pass.
                attempt.failed = not isinstance(failure, _RefusedByTarget)
                outcome: DeliveryFailed | None = failure
            else:
                outcome = None
        if outcome is not None:
            raise outcome

    async def _send(self, flow: Flow, envelope: Envelope, url: URL) -> None:
        session = self._inside if flow.name.startswith("_") else self._outside
        headers = {"Content-Type": envelope.content_type, "Idempotency-Key": envelope.id, "X-Alpha-Ren-Flow": flow.name}
        try:
            async with session.request(
                flow.deliver.method, url, data=envelope.body, headers=headers, allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=flow.deliver.timeout_s),
            ) as response:  # fmt: skip
                self._judge(response)
        except TimeoutError as error:
            raise DeliveryFailed(f"{url.host} did not answer within {flow.deliver.timeout_s:g} s.") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ForbiddenAddress):
                raise ForbiddenTarget(
                    f"The flow {flow.name} may not deliver to {url.host}: {error.os_error}."
                ) from error
            raise DeliveryFailed(f"{url.host}:{url.port} cannot be reached: {_reason(error.os_error)}.") from error
        except aiohttp.ClientError as error:
            raise DeliveryFailed(f"{url.host} broke off: {error or type(error).__name__}.") from error

    def _judge(self, response: aiohttp.ClientResponse) -> None:
        if 200 <= response.status < 300:
            return
        said = f"{response.url.host} answered {response.status} {response.reason or ''}".rstrip() + "."
        wait_s = retry_after_s(response.headers.get("Retry-After", ""), time.time())
        if 300 <= response.status < 500 and response.status not in (408, 425, 429):
            raise _RefusedByTarget(said, wait_s)
        raise DeliveryFailed(said, wait_s)

    def _circuit(self, url: URL) -> Circuit:
        key = (url.scheme, url.host or "", url.port or 0)
        circuit = self._circuits.get(key)
        if circuit is None:
            if len(self._circuits) >= MOST_CIRCUITS:
                self._circuits.pop(next(iter(self._circuits)))
            circuit = self._circuits[key] = Circuit()
        return circuit


class _RefusedByTarget(DeliveryFailed):
    pass


def retry_after_s(header: str, now: float) -> float:
    """Return the seconds in a Retry-After header (RFC 9110, 10.2.3: seconds or a date), 0.0 where it says nothing."""
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except ValueError:
        return 0.0


def _public_authorities() -> ssl.SSLContext:
    """Return a TLS context that trusts Debian's bundle.

    OpenSSL's own search needs the directory of hashes beside it, which the box lacks.
    """
    context = ssl.create_default_context()
    if AUTHORITIES.exists():
        context.load_verify_locations(AUTHORITIES)
    else:
        log.warning("%s is missing: deliveries by https may find no trusted certificate", AUTHORITIES)
    return context


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
    )


def _reason(error: OSError) -> str:
    """Return the system's own words, without the address that the sentence names already."""
    if isinstance(error, ssl.SSLError) or not error.errno:
        return str(error)
    return os.strerror(error.errno)

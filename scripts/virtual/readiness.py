"""Waiting until the appliance says of itself, through the port a user would use, that it does its work."""

import asyncio
import time
from collections.abc import Callable

import aiohttp
import msgspec

from scripts.virtual.errors import NotReady

_ASK_EVERY_S = 0.5
_ANSWER_DEADLINE_S = 10.0


class Readiness(msgspec.Struct, frozen=True):
    """Answer of the appliance's `/ready`; `boot_s` holds the phases of its boot in seconds."""

    ready: bool
    version: str
    boot_s: dict[str, float]


async def ask(client: aiohttp.ClientSession, url: str) -> Readiness | str:
    """Ask once: the appliance's answer, or one phrase that says why there is none yet."""
    try:
        # The certificate is made on the box, so no authority of this computer knows it, and nothing secret is sent.
        async with client.get(url, ssl=False) as response:
            body = await response.read()
            if response.status not in (200, 503):
                return f"HTTP status {response.status}"
            return msgspec.json.decode(body, type=Readiness)
    except TimeoutError:
        return "no answer"
    except aiohttp.ClientError as error:
        return "no connection" if isinstance(error, aiohttp.ClientOSError) else f"no answer ({type(error).__name__})"
    except msgspec.DecodeError:
        return "the reverse proxy answers, the console does not yet"


async def wait_until_ready(outside_url: str, deadline_s: float, tell: Callable[[str], None]) -> Readiness:
    """Ask `/ready` until it says yes; `tell` hears each change. `NotReady` after `deadline_s` seconds."""
    began = time.monotonic()
    state = "not asked yet"
    try:
        async with (
            asyncio.timeout(deadline_s),
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_DEADLINE_S)) as client,
        ):
            while True:
                answer = await ask(client, outside_url + "ready")
                if isinstance(answer, Readiness) and answer.ready:
                    return answer
                now = answer if isinstance(answer, str) else "the appliance answers: not ready yet"
                if now != state:
                    state = now
                    tell(f"{time.monotonic() - began:5.1f} s  {state}")
                await asyncio.sleep(_ASK_EVERY_S)
    except TimeoutError as error:
        raise NotReady(f"The appliance was not ready within {deadline_s:.0f} s; last of all: {state}.") from error

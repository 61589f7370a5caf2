"""The process that watches over the servers and the journey."""

import asyncio
import os
import ssl
import sys
from pathlib import Path

from aiohttp import web

from appliance import notify
from appliance.arhav.journey import PATH, Journey
from appliance.arhav.prober import Prober
from appliance.arhav.spec import CA_CREDENTIAL, Settings
from appliance.contracts.service import load
from appliance.errors import InvalidInput
from appliance.queue.client import connect


async def main() -> None:
    """Watch until cancelled."""
    context = load()
    settings = context.parse_settings(Settings)
    leg = context.legs["cluster"]
    receiver = f"http://{leg.v4}:{settings.port}{PATH}"
    async with connect(context) as queue, asyncio.TaskGroup() as group:
        tls = _box_only() if settings.entry.startswith("https:") else True
        journey = Journey(queue, settings.entry, receiver, tls)
        server = web.AppRunner(journey.application(), access_log=None)
        await server.setup()
        try:
            await web.TCPSite(server, leg.v4, settings.port).start()
            group.create_task(journey.run())
            group.create_task(Prober(queue, journey.check_soon).run())
            notify.ready("watches the servers and the journey")
            await asyncio.Event().wait()
        finally:
            await server.cleanup()


def _box_only() -> ssl.SSLContext:
    """Return a context that trusts nothing but the box's own authority.

    The name is not checked: the proxy is reached by an inner address, and no other holder of such a certificate exists.
    """
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "")) / CA_CREDENTIAL
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"The authority's certificate {path} cannot be used: {error}.", hint="It is made at first boot."
        ) from error
    return context


if __name__ == "__main__":
    sys.exit(notify.run(main))

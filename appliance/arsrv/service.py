"""The process of an integration server."""

import asyncio
import logging
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from appliance import notify
from appliance.arsrv.delivery import HttpSender
from appliance.arsrv.hooks import Hooks
from appliance.arsrv.runner import Runner
from appliance.arsrv.spec import Settings
from appliance.arsrv.targets import Guard
from appliance.contracts.member import Joined, Member, Ping, Pong
from appliance.contracts.service import ServiceContext, load
from appliance.errors import ApplianceError
from appliance.queue.client import QueueClient, Request, connect

log = logging.getLogger(__package__)

REJOIN_S = 30.0
"""Joining is repeated, so that a cluster whose state was lost or restored finds its servers again by itself."""
AGAIN_S = 1.0
DRAIN_S = 3.0
"""For requests under way at a stop; with the proxy's time to hear of it, and the runner's own for what is in hand, it
stays within the unit's stop time.
"""


async def main() -> None:
    """Serve until cancelled."""
    context = load()
    settings = context.parse_settings(Settings)
    guard = Guard((*settings.inner, *settings.forbidden))
    async with HttpSender(guard) as sender, connect(context) as queue, asyncio.TaskGroup() as group:
        runner = Runner(queue, sender)
        group.create_task(runner.run())
        group.create_task(_join(queue, context, settings.port))
        group.create_task(_answer_pings(queue, context.instance, runner))
        hooks = Hooks(queue, runner, settings.inner)
        async with _listen(hooks, context, settings.port):
            notify.ready("takes messages")
            try:
                await asyncio.Event().wait()
            finally:
                await hooks.leave()


@asynccontextmanager
async def _listen(hooks: Hooks, context: ServiceContext, port: int) -> AsyncIterator[None]:
    server = web.AppRunner(hooks.application(), access_log=None, shutdown_timeout=DRAIN_S)
    await server.setup()
    try:
        own = context.own("cluster")
        for host in (own.v4, own.v6):
            await web.TCPSite(server, host, port, backlog=1024).start()
        yield
    finally:
        await server.cleanup()


async def _join(queue: QueueClient, context: ServiceContext, port: int) -> None:
    leg = context.legs["cluster"]
    member = Member(name=context.instance, component=context.component, v4=leg.v4, v6=leg.v6, port=port)
    last = ""
    while True:
        try:
            joined = await queue.call("arclst.join", member, Joined)
        except ApplianceError as error:
            wait_s, said = AGAIN_S, f"cannot join the cluster yet: {error}"
        else:
            wait_s, said = REJOIN_S, f"joined the cluster at revision {joined.revision}"
        if said != last:
            log.info("%s", said)
            last = said
        await asyncio.sleep(wait_s)


async def _answer_pings(queue: QueueClient, name: str, runner: Runner) -> None:
    async def pong(request: Request) -> Pong:
        request.decode(Ping)
        return Pong(name=name, pending=runner.pending, flows_revision=runner.revision)

    await queue.serve(f"{name}.ping", pong, deadline_s=math.inf)


if __name__ == "__main__":
    sys.exit(notify.run(main))

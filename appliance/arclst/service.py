"""The process that keeps the cluster's state."""

import asyncio
import logging
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from appliance import notify
from appliance.arclst.spec import Settings
from appliance.arclst.users import Users
from appliance.arclst.writer import Writer
from appliance.contracts.flow import DeleteFlow, Flow, FlowChanged, Flows, InvalidFlow, PutFlow, check_flow
from appliance.contracts.member import Joined, Member
from appliance.contracts.service import load
from appliance.contracts.user import Done, Login, PairingAttempt, SessionToken, Setup
from appliance.errors import Refused, Unavailable
from appliance.queue.client import QueueClient, Request, connect

log = logging.getLogger(__package__)

DATABASE = "cluster.sqlite"
AGAIN_S = 1.0
OWNERS = {"_selftest": "arhav"}
"""The appliance's own flows, and the instance that may put each; nobody may delete them."""

Handler = Callable[[Request], Awaitable[object]]


class Cluster:
    """Answers calls about members and flows, and publishes both."""

    def __init__(self, queue: QueueClient, writer: Writer, settings: Settings) -> None:
        self._queue = queue
        self._writer = writer
        self._egress_ports = settings.egress_ports
        self._changed = asyncio.Event()
        self._changed.set()

    async def join(self, request: Request) -> Joined:
        """Take in the calling server."""
        member = request.decode(Member)
        if member.name != request.caller:
            raise Refused(f"{request.caller} cannot join as {member.name}.")
        before = (await self._writer.do(lambda state: state.members())).members
        revision = await self._writer.do(lambda state: state.join(member))
        if member not in before:
            log.info("%s joined at revision %d", member.name, revision)
            self._changed.set()
        return Joined(revision=revision)

    async def put_flow(self, request: Request) -> FlowChanged:
        """Add or replace a flow that validates."""
        put = request.decode(PutFlow)
        self._check_owner(put.flow.name, request.caller)
        check_flow(put.flow)
        self._check_reachable(put.flow)
        who = _who(put.who, request.caller)
        return await self._announce(await self._writer.do(lambda state: state.put_flow(put.flow, who)))

    async def delete_flow(self, request: Request) -> FlowChanged:
        """Delete a flow."""
        delete = request.decode(DeleteFlow)
        if delete.name.startswith("_"):
            raise Refused(f"The flow {delete.name} is the appliance's own.")
        who = _who(delete.who, request.caller)
        return await self._announce(await self._writer.do(lambda state: state.delete_flow(delete.name, who)))

    async def list_flows(self, _request: Request) -> Flows:
        """Return every flow, the appliance's own included."""
        return await self._writer.do(lambda state: state.flows())

    async def publish(self) -> None:
        """Emit `members` and `flows` now and at every change, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            members = await self._writer.do(lambda state: state.members())
            flows = await self._writer.do(lambda state: state.flows())
            try:
                await self._queue.emit("members", members)
                await self._queue.emit("flows", flows)
            except Unavailable as error:
                log.warning("the cluster's state cannot be published yet: %s", error)
                self._changed.set()
                await asyncio.sleep(AGAIN_S)

    async def _announce(self, revision: int) -> FlowChanged:
        self._changed.set()
        return FlowChanged(revision=revision)

    def _check_owner(self, name: str, caller: str) -> None:
        if name.startswith("_") and OWNERS.get(name) != caller:
            raise Refused(
                f"The name {name} is kept for the appliance's own flows.",
                hint="Take a name without a leading underscore.",
            )

    def _check_reachable(self, flow: Flow) -> None:
        url = urlsplit(flow.deliver.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        if port not in self._egress_ports and not flow.name.startswith("_"):
            raise InvalidFlow(
                f"The box lets no delivery out on port {port} - at `$.deliver.url`.",
                hint="Use one of the ports in `arsrv.egress_ports` of the machine's configuration, or add it there.",
            )


def _who(user: str, caller: str) -> str:
    return f"{user} at {caller}" if user else caller


async def main() -> None:
    """Serve until cancelled."""
    context = load()
    path = Path(os.environ.get("STATE_DIRECTORY", ".")) / DATABASE
    async with Writer(path, time.time) as writer, connect(context) as queue, asyncio.TaskGroup() as group:
        cluster = Cluster(queue, writer, context.parse_settings(Settings))

        async def pair(attempt: PairingAttempt) -> None:
            await queue.call("supervisor.pair", attempt, Done)

        users = Users(writer, pair)
        calls: dict[str, Handler] = {
            "arclst.join": cluster.join,
            "arclst.flow.put": cluster.put_flow,
            "arclst.flow.delete": cluster.delete_flow,
            "arclst.flow.list": cluster.list_flows,
            "arclst.setup": lambda request: users.setup(request.decode(Setup)),
            "arclst.setup.state": lambda _request: users.setup_state(),
            "arclst.login": lambda request: users.login(request.decode(Login)),
            "arclst.session": lambda request: users.session(request.decode(SessionToken)),
            "arclst.logout": lambda request: users.logout(request.decode(SessionToken)),
        }
        for name, handler in calls.items():
            # Without a deadline: there is nothing else to do until the broker is there.
            group.create_task(queue.serve(name, handler, deadline_s=math.inf))
        group.create_task(cluster.publish())
        notify.ready("keeps the cluster's state")


if __name__ == "__main__":
    sys.exit(notify.run(main))

"""The flows as the portal shows them: the newest event `flows`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from appliance.contracts.flow import Flow, Flows
from appliance.errors import NotFound, Unavailable
from appliance.queue.client import QueueClient


class Catalogue:
    """Follows the event `flows`; ARCLST stays the only place where flows are kept."""

    def __init__(self) -> None:
        self._flows: Flows | None = None

    @property
    def flows(self) -> Flows:
        """Every flow but the appliance's own, and the revision; raises Unavailable until ARCLST was heard."""
        if self._flows is None:
            raise Unavailable("The cluster's flows are not known yet.")
        shown = (flow for flow in self._flows.flows if not flow.name.startswith("_"))
        return Flows(revision=self._flows.revision, flows=tuple(sorted(shown, key=lambda flow: flow.name)))

    def find(self, name: str) -> Flow:
        """Return a flow by its name, or raise NotFound."""
        for flow in self.flows.flows:
            if flow.name == name:
                return flow
        raise NotFound(f"There is no flow named {name}.", hint="The portal's page lists the flows there are.")

    async def follow(self, queue: QueueClient) -> None:
        """Take each new value of the event, until cancelled."""
        async for event in queue.events("flows"):
            self._flows = event.decode(Flows)


@asynccontextmanager
async def following(queue: QueueClient) -> AsyncIterator[Catalogue]:
    """A Catalogue that is kept up to date for as long as the context lasts."""
    catalogue = Catalogue()
    async with asyncio.TaskGroup() as tasks:
        follow = tasks.create_task(catalogue.follow(queue), name="flows")
        try:
            yield catalogue
        finally:
            follow.cancel()

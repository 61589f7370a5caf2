"""The portal's page and its API for flows.

    GET    /portal/api/flows         every flow and the revision
    GET    /portal/api/flows/NAME    one flow
    PUT    /portal/api/flows/NAME    adds or replaces it; body: the flow as JSON; answer: the revision
    DELETE /portal/api/flows/NAME    removes it
"""

from appliance.contracts.flow import DeleteFlow, FlowChanged, InvalidFlow, PutFlow, parse_flow
from appliance.portal.catalogue import Catalogue
from appliance.web.page import ConsolePage
from appliance.web.server import Route


class PortalPage(ConsolePage):
    """A page that knows the flows."""

    @property
    def catalogue(self) -> Catalogue:
        """The flows as ARCLST published them last."""
        catalogue: Catalogue = self.settings["companion"]
        return catalogue


class FrontPage(PortalPage):
    """GET /portal/: the flows, and a form for another one; its script talks to the API."""

    def get(self) -> None:
        """Show the page."""
        self.render("flows.html")


class HealthPage(PortalPage):
    """GET /portal/health: 200 while this process answers; the reverse proxy asks."""

    needs_login = False

    def get(self) -> None:
        """Say that the portal is there."""
        self.send_json({"up": True})


class FlowsPage(PortalPage):
    """/portal/api/flows."""

    def get(self) -> None:
        """Answer with every flow."""
        self.send_json(self.catalogue.flows)


class FlowPage(PortalPage):
    """/portal/api/flows/NAME."""

    def get(self, name: str) -> None:
        """Answer with the flow."""
        self.send_json(self.catalogue.find(name))

    async def put(self, name: str) -> None:
        """Add the flow or replace it; it runs from the moment the servers have heard of the new revision."""
        flow = parse_flow(self.request.body)
        if flow.name != name:
            raise InvalidFlow(f"The flow is named {flow.name} but was sent to {name} - at `$.name`.")
        self.send_json(await self.queue.call("arclst.flow.put", PutFlow(flow=flow, who=self.user), FlowChanged))

    async def delete(self, name: str) -> None:
        """Remove the flow; messages that are on their way stay in the queue."""
        self.send_json(await self.queue.call("arclst.flow.delete", DeleteFlow(name=name, who=self.user), FlowChanged))


ROUTES: tuple[Route, ...] = (
    ("", FrontPage),
    ("health", HealthPage),
    ("api/flows", FlowsPage),
    (r"api/flows/([^/]+)", FlowPage),
)

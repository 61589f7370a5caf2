"""The figures of the queue and its routes for Prometheus."""

import base64
import binascii

from appliance.arwadm.routes import ask_backlogs
from appliance.contracts.traffic import QueueStats
from appliance.contracts.user import Login
from appliance.errors import Problem
from appliance.queue.metrics import CONTENT_TYPE, exposition
from appliance.web.page import ConsolePage
from appliance.web.server import Route


class MetricsPage(ConsolePage):
    """GET /metrics: for who is logged in, or brings name and password by HTTP basic authentication (RFC 7617)."""

    async def prepare(self) -> None:
        """Look the session up, or open one."""
        given = credentials(self.request.headers.get("Authorization", ""))
        if given is None:
            await super().prepare()
        else:
            user, password = given
            self.session = await self.sessions.log_in(Login(user=user, password=password, source=self.source))

    async def get(self) -> None:
        """Ask broker and bridge at each scrape."""
        stats = await self.queue.call("queue.stats", None, QueueStats)
        backlogs = await ask_backlogs(self.queue, stats)
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(exposition(stats, backlogs))

    def set_problem(self, problem: Problem) -> None:
        """Say also how to log in."""
        super().set_problem(problem)
        if problem.status == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="ALPHA-REN", charset="UTF-8"')


def credentials(header: str) -> tuple[str, str] | None:
    """Return name and password of an Authorization header, None where it has none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


ROUTES: tuple[Route, ...] = (("metrics", MetricsPage),)

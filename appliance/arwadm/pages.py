"""The console's pages: first set-up, login, the live view, and the two answers that need no login."""

from typing import ClassVar

import msgspec
from tornado.iostream import StreamClosedError

from appliance.arwadm.picture import Watcher
from appliance.contracts.machine import BootPhase
from appliance.contracts.user import Done, Login, SessionToken, Setup, SetupState
from appliance.errors import ApplianceError, InvalidInput, Problem, Unavailable
from appliance.web.page import ConsolePage
from appliance.web.server import Route
from appliance.web.session import COOKIE

MOST_SESSION_S = 12 * 3600
CHECK_SESSION_EVERY = 15
"""A live view asks this many pictures apart whether its session still is one."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of /ready: whether the machine does its work, and the phases of this boot in seconds."""

    ready: bool
    version: str
    boot_s: dict[str, float]

    @staticmethod
    def phases(boot: tuple[BootPhase, ...]) -> dict[str, float]:
        """Return the phases as a table."""
        return {phase.name: phase.seconds for phase in boot}


class ReadyPage(ConsolePage):
    """GET /ready: 200 when the machine is ready, 503 when it is not; for load balancers and whoever started it."""

    needs_login = False

    def get(self) -> None:
        """Answer from what the supervisor said last."""
        watcher: Watcher = self.settings["companion"]
        machine = watcher.machine
        if machine is None or "machine" in watcher.picture.stale:
            raise Unavailable("The supervisor has not been heard of yet.")
        answer = Ready(ready=machine.ready, version=machine.version, boot_s=Ready.phases(machine.boot))
        self.send_json(answer, 200 if machine.ready else 503)


class HealthPage(ConsolePage):
    """GET /health: 200 while this process answers; the reverse proxy asks."""

    needs_login = False

    def get(self) -> None:
        """Say that the console is there, even while the queue is not: it can still show that."""
        self.send_json({"up": True})


class FrontPage(ConsolePage):
    """GET /: the live view."""

    def get(self) -> None:
        """Show the page; its script fills it from /live."""
        self.render("live.html")


class LivePage(ConsolePage):
    """GET /live: the picture as server-sent events (HTML Living Standard, section 9.2), one whenever it changes."""

    async def get(self) -> None:
        """Stream until the browser leaves or the session ends."""
        watcher: Watcher = self.settings["companion"]
        self.set_header("Content-Type", "text/event-stream")
        sent = 0
        try:
            async for picture in watcher.pictures():
                if sent % CHECK_SESSION_EVERY == CHECK_SESSION_EVERY - 1 and not await self._still_logged_in():
                    self.write("event: ended\ndata: {}\n\n")
                    break
                self.write(b"data: " + msgspec.json.encode(picture) + b"\n\n")
                await self.flush()
                sent += 1
        except StreamClosedError:
            return

    async def _still_logged_in(self) -> bool:
        try:
            await self.sessions.check(self.get_cookie(COOKIE))
        except ApplianceError as error:
            return error.problem.status != 401
        return True


class FormPage(ConsolePage):
    """A page with one form that is shown again, with what was wrong, when it is refused."""

    needs_login = False
    template: ClassVar[str]

    def show(self, problem: Problem | None = None) -> None:
        """Show the form."""
        self.render(self.template, problem=problem)

    def refuse(self, error: ApplianceError) -> None:
        """Show what was wrong, to a person with the form, to a program as JSON."""
        self.set_problem(error.problem)
        if self.wants_page:
            self.show(error.problem)
        else:
            self.send_json(error.problem, error.problem.status)


class SetupPage(FormPage):
    """/setup: sets the administrator's password against the pairing code that the local console shows."""

    template = "setup.html"

    def get(self) -> None:
        """Show the form."""
        self.show()

    async def post(self) -> None:
        """Set the password, then go on to the login."""
        try:
            if self.field("password") != self.field("again"):
                raise InvalidInput("The two passwords are not the same.", hint="Type the same password twice.")
            request = Setup(code=self.field("code"), password=self.field("password"), source=self.source)
            await self.queue.call("arclst.setup", request, Done, deadline_s=20)
        except ApplianceError as error:
            self.refuse(error)
            return
        self.redirect("/login", status=303)


class LoginPage(FormPage):
    """/login: opens a session."""

    template = "login.html"

    async def get(self) -> None:
        """Show the form, or the first set-up where there is no password yet."""
        state = await self.queue.call("arclst.setup.state", None, SetupState)
        if state.done:
            self.show()
        else:
            self.redirect("/setup")

    async def post(self) -> None:
        """Open a session and go to the live view."""
        try:
            request = Login(user=self.field("user"), password=self.field("password"), source=self.source)
            token = await self.queue.call("arclst.login", request, SessionToken, deadline_s=20)
        except ApplianceError as error:
            self.refuse(error)
            return
        self.set_cookie(
            COOKIE, token.token, max_age=MOST_SESSION_S, path="/", secure=True, httponly=True, samesite="Strict"
        )
        self.redirect("/", status=303)


class LogoutPage(ConsolePage):
    """POST /logout: ends the session."""

    needs_login = False

    async def post(self) -> None:
        """End it at ARCLST first, then forget the cookie."""
        token = self.get_cookie(COOKIE)
        if token:
            self.sessions.forget(token)
            await self.queue.call("arclst.logout", SessionToken(token=token), Done)
        self.clear_cookie(COOKIE, path="/", secure=True)
        self.redirect("/login", status=303)


ROUTES: tuple[Route, ...] = (
    ("", FrontPage),
    ("live", LivePage),
    ("ready", ReadyPage),
    ("health", HealthPage),
    ("setup", SetupPage),
    ("login", LoginPage),
    ("logout", LogoutPage),
)

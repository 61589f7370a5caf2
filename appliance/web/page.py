"""Request handlers every console page stands on: headers, session, errors a person can act on."""

from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
from tornado.template import BaseLoader, Template
from tornado.web import HTTPError, MissingArgumentError, RequestHandler, StaticFileHandler

from appliance.contracts.service import ServiceContext
from appliance.contracts.user import Session
from appliance.errors import NOT_DECODED, ApplianceError, InvalidInput, Problem
from appliance.queue.client import QueueClient
from appliance.web.session import COOKIE, NotLoggedIn, Sessions

T = TypeVar("T")

SECURITY_HEADERS = {
    # Nothing inline and nothing from elsewhere: a page cannot be made to run what it did not ship with.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

RETRY_AFTER_S = "2"

AGAIN = "Load the page again and repeat."

PLAIN_SENTENCES = {
    400: ("The request is not understood.", AGAIN),
    403: ("The form is no longer valid or came from another site.", AGAIN),
    404: ("There is no such page.", "Look whether its address is written right."),
    405: ("This page does not take that kind of request.", AGAIN),
}


class FolderLoader(BaseLoader):
    """Finds a template in a console's own folder first, then in the shared one."""

    def __init__(self, *folders: Path) -> None:
        super().__init__()
        self._folders = folders

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Return the name as it is: templates are named from their folder's root."""
        return name

    def _create_template(self, name: str) -> Template:
        for folder in self._folders:
            if (folder / name).is_file():
                return Template((folder / name).read_bytes(), name=name, loader=self)
        raise FileNotFoundError(f"template {name}")


class Assets(StaticFileHandler):
    """Style sheets, scripts, icons: the same headers as pages, but kept by browsers, which ask whether they changed."""

    def set_extra_headers(self, path: str) -> None:
        """Add the security headers to a file."""
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-cache")


class ConsolePage(RequestHandler):
    """A page or API of a console. `needs_login` is what most of them want."""

    needs_login: ClassVar[bool] = True
    session: Session | None = None

    @property
    def queue(self) -> QueueClient:
        """The console's connection to the queue."""
        queue: QueueClient = self.settings["queue"]
        return queue

    @property
    def sessions(self) -> Sessions:
        """Who is logged in."""
        sessions: Sessions = self.settings["sessions"]
        return sessions

    @property
    def context(self) -> ServiceContext:
        """Which instance this is."""
        context: ServiceContext = self.settings["context"]
        return context

    @property
    def user(self) -> str:
        """The name of who is logged in."""
        if self.session is None:
            raise NotLoggedIn("You are not logged in.")
        return self.session.user

    @property
    def source(self) -> str:
        """The client's address as the reverse proxy saw it, for rate limits and the journal."""
        return self.request.remote_ip or ""

    def set_default_headers(self) -> None:
        """Set the security headers on every answer."""
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    async def prepare(self) -> None:
        """Look the session up before the handler runs; send a person without one to the login page."""
        if not self.needs_login:
            return
        try:
            self.session = await self.sessions.check(self.get_cookie(COOKIE))
        except ApplianceError as error:
            if error.problem.status == 401 and self.wants_page:
                self.redirect("/login")
                return
            raise

    @property
    def wants_page(self) -> bool:
        """Whether a person is looking, rather than a program."""
        return "text/html" in self.request.headers.get("Accept", "")

    def get_template_namespace(self) -> dict[str, Any]:  # Tornado's own signature
        """Add what every page shows: the machine and who is logged in."""
        namespace = super().get_template_namespace()
        namespace["machine"] = self.context.machine
        namespace["session"] = self.session
        namespace["problem"] = None
        return namespace

    def field(self, name: str) -> str:
        """Return a form field, raise InvalidInput when it is missing or given twice."""
        values = self.get_body_arguments(name, strip=False)
        if len(values) != 1:
            raise InvalidInput(f"The field `{name}` is missing or there twice.")
        return values[0]

    def parse_body(self, kind: type[T]) -> T:
        """Return the JSON body as `kind`, or raise InvalidInput with the field's path."""
        try:
            return msgspec.json.decode(self.request.body, type=kind)
        except NOT_DECODED as error:
            raise InvalidInput(f"The request's body is not valid: {error}.") from error

    def send_json(self, value: object, status: int = 200) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(value))

    def set_problem(self, problem: Problem) -> None:
        """Set the status of a refusal and, where trying again makes sense, when."""
        self.set_status(problem.status)
        if problem.status == 503:
            self.set_header("Retry-After", RETRY_AFTER_S)

    def write_error(self, status_code: int, **kwargs: Any) -> None:  # Tornado's own signature
        """Answer with code, sentence and hint, as a page for a person and as JSON for a program."""
        problem = problem_of(status_code, kwargs.get("exc_info", (None, None, None))[1])
        self.set_problem(problem)
        if self.wants_page:
            self.render("problem.html", problem=problem)
        else:
            self.send_json(problem, problem.status)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:  # Tornado's own signature
        """Log what is our fault with its traceback, what was refused not at all: the answer says it."""
        if not isinstance(value, (ApplianceError, HTTPError)):
            super().log_exception(typ, value, tb)


class NoPage(ConsolePage):
    """Whatever has no handler."""

    needs_login = False

    async def prepare(self) -> None:
        """Answer 404 to every method."""
        raise HTTPError(404)


def problem_of(status: int, error: BaseException | None) -> Problem:
    """Return what an exception says to the outside: what we meant to say, or nothing but that it failed."""
    if isinstance(error, ApplianceError):
        return error.problem
    if isinstance(error, MissingArgumentError):
        return Problem(code="invalid-input", message=f"The field `{error.arg_name}` is missing.", status=400)
    if isinstance(error, HTTPError):
        sentence, hint = PLAIN_SENTENCES.get(status, ("The request was refused.", AGAIN))
        return Problem(code=f"http-{status}", message=sentence, hint=hint, status=status)
    hint = "`alpha-ren logs` on the box says why."
    return Problem(code="internal-error", message="The console could not answer.", hint=hint, status=500)

"""The console and the portal as a program uses them: one logged-in client over HTTPS."""

import http.cookiejar
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


class ConsoleClient:
    """Speaks to one box at `url` (https://host:port), whose certificate is checked against `ca` where that is given."""

    def __init__(self, url: str, *, ca: str | None = None, timeout_s: float = 20.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._jar = http.cookiejar.CookieJar()
        tls = ssl.create_default_context(cadata=ca)
        if ca is None:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self._jar), urllib.request.HTTPSHandler(context=tls), _NoRedirect()
        )

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Return the answer, whatever its status; raises OSError where nobody answers."""
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers or {})
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as refusal:
            return Answer(refusal.code, dict(refusal.headers), refusal.read())

    def get(self, path: str) -> Answer:
        """GET a path."""
        return self.request("GET", path)

    def form(self, path: str, **fields: str) -> Answer:
        """POST a form as its page would, with the page's own XSRF token."""
        token = self._xsrf(path)
        body = urllib.parse.urlencode({**fields, "_xsrf": token}).encode()
        return self.request("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded"})

    def api(self, method: str, path: str, value: Any = None) -> Answer:
        """Call the API with a JSON body."""
        headers = {"X-Xsrftoken": self._xsrf("/login"), "Content-Type": "application/json"}
        return self.request(method, path, None if value is None else json.dumps(value).encode(), headers)

    def set_up(self, code: str, password: str = PASSWORD) -> Answer:
        """Set the administrator's password against the pairing code."""
        return self.form("/setup", code=code, password=password, again=password)

    def log_in(self, password: str = PASSWORD) -> Answer:
        """Open a session; the client keeps its cookie."""
        return self.form("/login", user="admin", password=password)

    def put_flow(self, flow: dict[str, Any]) -> Answer:
        """Add or replace a flow."""
        return self.api("PUT", f"/portal/api/flows/{flow['name']}", flow)

    def picture(self) -> Any:
        """Return what the live view shows right now."""
        request = urllib.request.Request(self.url + "/live", headers={"Accept": "text/event-stream"})
        with self._opener.open(request, timeout=self._timeout_s) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    return json.loads(line.removeprefix(b"data: "))
        raise AssertionError("the live view ended before it showed anything")

    def _xsrf(self, page: str) -> str:
        if not self._cookie("__Host-xsrf"):
            self.get("/setup" if page == "/login" else page)
        return self._cookie("__Host-xsrf")

    def _cookie(self, name: str) -> str:
        return next((cookie.value or "" for cookie in self._jar if cookie.name == name), "")

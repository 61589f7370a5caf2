"""Sessions as a console sees them: a token in a cookie, vouched for by ARCLST at every request."""

import asyncio
import hmac
import secrets

import msgspec

from appliance.contracts.user import Login, Session, SessionToken
from appliance.errors import ApplianceError, Refused
from appliance.queue.client import QueueClient

COOKIE = "__Host-session"
"""The prefix makes browsers insist on Secure, Path=/ and no Domain (RFC 6265bis, section 4.1.3.2)."""

REMEMBERED_S = 2.0
MOST_REMEMBERED = 1024


class _Remembered(msgspec.Struct, frozen=True):
    session: Session
    until: float


class NotLoggedIn(Refused):
    """There is no session, or it has ended."""

    code = "not-logged-in"
    hint = "Log in at /login and try again."
    status = 401


class Sessions:
    """Asks ARCLST whether a token is a session; remembers a yes for two seconds, a no never."""

    def __init__(self, queue: QueueClient) -> None:
        self._queue = queue
        self._remembered: dict[str, _Remembered] = {}
        self._secret = secrets.token_bytes()
        self._programs: dict[bytes, str] = {}

    async def check(self, token: str | None) -> Session:
        """Return the session of a token; raise NotLoggedIn without one, Unavailable while ARCLST is away."""
        if not token:
            raise NotLoggedIn("You are not logged in.")
        now = asyncio.get_running_loop().time()
        remembered = self._remembered.get(token)
        if remembered and remembered.until > now:
            return remembered.session
        session = await self._queue.call("arclst.session", SessionToken(token=token), Session)
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[token] = _Remembered(session, now + REMEMBERED_S)
        return session

    def forget(self, token: str) -> None:
        """Ask ARCLST again at the next request."""
        self._remembered.pop(token, None)

    async def log_in(self, login: Login) -> Session:
        """Return the session of a program that brings name and password with each request: one, while it lasts.

        Raises what ARCLST says to a wrong password. Neither is kept here, only a keyed hash of both.
        """
        known = hmac.digest(self._secret, msgspec.json.encode(login), "sha256")
        token = self._programs.get(known)
        if token is not None:
            try:
                return await self.check(token)
            except ApplianceError as error:
                if error.problem.status != 401:
                    raise
        opened = await self._queue.call("arclst.login", login, SessionToken, deadline_s=20)
        if len(self._programs) >= MOST_REMEMBERED:
            self._programs.clear()
        self._programs[known] = opened.token
        return await self.check(opened.token)

"""Users of the consoles: the administrator's password, logins and sessions."""

import asyncio
import hashlib
import ipaddress
import logging
import secrets
import time
from collections.abc import Awaitable, Callable

from appliance.arclst.passwords import Throttle, check_policy, hash_password, verify_password
from appliance.arclst.writer import Writer
from appliance.contracts.user import Done, Login, PairingAttempt, Session, SessionToken, Setup, SetupState
from appliance.errors import ApplianceError

log = logging.getLogger(__name__)

ADMINISTRATOR = "admin"
IDLE_S = 30 * 60.0
LONGEST_S = 12 * 3600.0
NOTE_USE_EVERY_S = 60.0
"""A session's use is noted on disk at most this often, since a live page asks every few seconds."""

Pair = Callable[[PairingAttempt], Awaitable[None]]


class BadCredentials(ApplianceError):
    """Name or password is wrong; which one is not said."""

    code = "bad-credentials"
    hint = "Check name and password; a new password can be set with the pairing code on the box's own screen."
    status = 401


class NoSession(ApplianceError):
    """The session is over or never was."""

    code = "no-session"
    hint = "Log in again."
    status = 401


class Users:
    """Sets the password, opens, checks and closes sessions. `pair` raises where a pairing code is wrong."""

    def __init__(self, writer: Writer, pair: Pair, clock: Callable[[], float] = time.time) -> None:
        self._writer = writer
        self._pair = pair
        self._clock = clock
        self._throttle = Throttle()
        self._hashing = asyncio.Semaphore(2)

    async def setup(self, setup: Setup) -> Done:
        """Set the administrator's password.

        A fresh pairing code proves that somebody stands at the box, which is also how a lost password is replaced.
        So this works at any time, and ends all sessions. The policy comes first, lest a weak password use up the code.
        """
        check_policy(setup.password, ADMINISTRATOR)
        await self._pair(PairingAttempt(code=setup.code, source=setup.source))
        async with self._hashing:
            kept = await asyncio.to_thread(hash_password, setup.password)
        await self._writer.do(lambda state: state.set_password(ADMINISTRATOR, kept, "local console"))
        log.info("the administrator's password was set from %s", setup.source or "an unknown address")
        return Done()

    async def setup_state(self) -> SetupState:
        """Return whether the administrator's password was ever set."""
        return SetupState(done=await self._writer.do(lambda state: state.password(ADMINISTRATOR)) is not None)

    async def login(self, login: Login) -> SessionToken:
        """Return the token of a new session; raise BadCredentials or TooManyAttempts."""
        key = (_network(login.source), login.user[:64])
        self._throttle.enter(key, time.monotonic())
        kept = await self._writer.do(lambda state: state.password(login.user))
        async with self._hashing:
            right = await asyncio.to_thread(verify_password, kept, login.password)
        if not right:
            log.warning("a login as %r from %s failed", login.user[:48], login.source or "an unknown address")
            raise BadCredentials("Name or password is wrong.")
        self._throttle.succeeded(key)
        token = secrets.token_urlsafe(32)
        now = self._clock()
        await self._writer.do(lambda state: state.forget_sessions(now - LONGEST_S, now - IDLE_S))
        await self._writer.do(lambda state: state.open_session(_hash(token), login.user))
        return SessionToken(token=token)

    async def session(self, token: SessionToken) -> Session:
        """Return whose session it is and until when, and prolong it; raise NoSession."""
        key = _hash(token.token)
        found = await self._writer.do(lambda state: state.session(key))
        now = self._clock()
        if found is None:
            raise NoSession("There is no such session.")
        user, opened_at, seen_at = found
        if not opened_at - IDLE_S <= now < min(opened_at + LONGEST_S, seen_at + IDLE_S):
            await self._writer.do(lambda state: state.close_session(key))
            raise NoSession("The session is over.")
        if now - seen_at >= NOTE_USE_EVERY_S:
            await self._writer.do(lambda state: state.touch_session(key))
        return Session(user=user, expires_at=min(opened_at + LONGEST_S, now + IDLE_S))

    async def logout(self, token: SessionToken) -> Done:
        """End a session; one that is over already is no error."""
        await self._writer.do(lambda state: state.close_session(_hash(token.token)))
        return Done()


def _network(source: str) -> str:
    """Return who guesses count for: an IPv4 address, or the /64 of an IPv6 one, of which a guesser has 2**64."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source[:64]
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)


def _hash(token: str) -> bytes:
    # The token has 256 random bits, so a plain hash is enough: there is nothing to guess.
    return hashlib.sha256(token.encode()).digest()

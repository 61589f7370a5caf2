"""The pairing code: what the local screen shows proves to the web wizard that somebody stands at the machine.

A code is eight characters, holds for fifteen minutes, and is used up by the first right try. After that none exists
until a person at the local console asks for one: a code that always stood on a serial log would be a standing password
reset.

Guessing: 24^8 codes (36.7 bits). A source is locked out after five wrong tries and a code is burnt after twenty, each
lock-out twice as long as the one before. The limit per source comes first, so that a stranger's guesses do not at once
lock out the administrator. No time here follows the wall clock, which may jump when a box without a battery learns what
time it is.
"""

import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable

import msgspec

from appliance.contracts.machine import Pairing
from appliance.contracts.user import PairingAttempt
from appliance.errors import Refused

ALPHABET = "BCDFGHJKMPQRTVWXY2346789"
"""No vowels, so no words; nothing that is read as something else (0 O, 1 I L, 5 S, Z, N)."""

LENGTH = 8
LIFETIME_S = 15 * 60.0
MOST_SOURCES = 256


class WrongCode(Refused):
    """The code is not the one on the local console."""

    code = "wrong-pairing-code"
    hint = "Read the code on the machine's own screen again; it changes every 15 minutes and after each use."


class PairingClosed(Refused):
    """There is no pairing code at the moment."""

    code = "pairing-closed"
    hint = "Press F4 on the machine's own screen to have a new pairing code shown."


class TooManyTries(Refused):
    """Too many wrong codes were sent; `wait_s` is when the next try makes sense, in seconds."""

    code = "too-many-tries"
    status = 429

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        seconds = max(1, round(wait_s))
        super().__init__(
            "Too many wrong pairing codes were sent.",
            hint=f"Try again in {seconds} seconds, with the code that the machine's own screen shows then.",
        )


class Limit(msgspec.Struct, frozen=True):
    """`tries` wrong ones lock out for `first_s`, twice as long each time up to `most_s`; forgotten after `forget_s`."""

    tries: int
    first_s: float
    most_s: float
    forget_s: float = 3600.0


PER_SOURCE = Limit(tries=5, first_s=30.0, most_s=900.0)
OVERALL = Limit(tries=20, first_s=15.0, most_s=300.0)


class Strikes:
    """The wrong tries of one source, or of all of them, and the lock-out that follows from them."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._wrong = 0
        self._lockouts = 0
        self._locked_until = float("-inf")
        self.last_at = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return for how long this is locked out, 0 when it is not."""
        return max(0.0, self._locked_until - now)

    def strike(self, now: float) -> bool:
        """Count a wrong try and return whether it was the one that locks out."""
        if now - max(self.last_at, self._locked_until) > self._limit.forget_s:
            self._wrong = self._lockouts = 0
        self.last_at = now
        self._wrong += 1
        if self._wrong < self._limit.tries:
            return False
        self._wrong = 0
        # The exponent is bounded because an attacker chooses how often this is reached, and floats end at 2^1024.
        self._locked_until = now + min(self._limit.first_s * 2.0 ** min(self._lockouts, 32), self._limit.most_s)
        self._lockouts += 1
        return True


class PairingDesk:
    """Gives out one code at a time and judges what is sent in. `opened` is whether a code exists from the start."""

    def __init__(
        self,
        *,
        opened: bool,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        choose: Callable[[str], str] = secrets.choice,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._choose = choose
        self._code: str | None = None
        self._expires = 0.0
        self._overall = Strikes(OVERALL)
        self._sources: dict[str, Strikes] = {}
        if opened:
            self._renew()

    def current(self) -> Pairing | None:
        """Return the code to show, a fresh one where the last has expired; None while the desk is closed."""
        if self._code is None:
            return None
        if self._monotonic() >= self._expires:
            self._renew()
        return self._shown()

    def open(self) -> Pairing:
        """Return a code because somebody at the machine asked for one: the standing one, or a new one."""
        return self.current() or self._renew()

    def attempt(self, attempt: PairingAttempt) -> None:
        """Use the code up if it is the right one; else raise PairingClosed, TooManyTries or WrongCode."""
        current = self.current()
        if current is None:
            raise PairingClosed("No pairing code is being shown at the moment.")
        now = self._monotonic()
        source = self._strikes_of(attempt.source)
        wait_s = max(source.wait_s(now), self._overall.wait_s(now))
        if wait_s > 0:
            raise TooManyTries(wait_s)
        if not hmac.compare_digest(normal(attempt.code).encode(), normal(current.code).encode()):
            source.strike(now)
            if self._overall.strike(now):
                self._renew()
            raise WrongCode("That is not the pairing code on the machine's screen.")
        self._code = None
        self._overall = Strikes(OVERALL)
        self._sources.clear()

    def _renew(self) -> Pairing:
        self._code = "".join(self._choose(ALPHABET) for _ in range(LENGTH))
        self._expires = self._monotonic() + LIFETIME_S
        return self._shown()

    def _shown(self) -> Pairing:
        code = self._code or ""
        remaining_s = self._expires - self._monotonic()
        return Pairing(code=f"{code[:4]}-{code[4:]}", expires_at=self._wall() + remaining_s)

    def _strikes_of(self, source: str) -> Strikes:
        key = network_of(source)
        if key not in self._sources:
            if len(self._sources) >= MOST_SOURCES:
                del self._sources[min(self._sources, key=lambda known: self._sources[known].last_at)]
            self._sources[key] = Strikes(PER_SOURCE)
        return self._sources[key]


def normal(code: str) -> str:
    """Return the code as compared: upper case, without dashes and blanks, cut where no code can be that long."""
    return "".join(character for character in code[:64].upper() if character not in "- \t")


def network_of(source: str) -> str:
    """Return what counts as one source: an IPv4 address, an IPv6 /64 (one host has all of it), else the text itself."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)

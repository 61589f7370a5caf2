"""Passwords: what is accepted, how they are kept (argon2id, RFC 9106), and how often one may guess."""

from collections import OrderedDict

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from appliance.errors import ApplianceError, InvalidInput

SHORTEST = 10
LONGEST = 256


class WeakPassword(InvalidInput):
    """The password is not accepted; nothing was changed."""

    code = "weak-password"
    hint = f"Take at least {SHORTEST} characters; a few unrelated words are easy to remember and hard to guess."


class TooManyAttempts(ApplianceError):
    """Too many wrong passwords from there; the wait grows with each."""

    code = "too-many-attempts"
    status = 429


# OWASP's parameters for servers that do other work too: 19 MiB, two passes, one lane, about 30 ms.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def check_policy(password: str, user: str) -> None:
    """Raise WeakPassword where the password is too short, too long, of one character, or the user's name."""
    if len(password) < SHORTEST:
        raise WeakPassword(f"The password has {len(password)} characters, it needs at least {SHORTEST}.")
    if len(password) > LONGEST:
        raise WeakPassword(f"The password is longer than {LONGEST} characters.", hint="Take a shorter one.")
    if len(set(password)) < 3 or password.casefold().startswith(user.casefold()):
        raise WeakPassword("The password is too easy to guess: one or two characters repeated, or the user's name.")


def hash_password(password: str) -> str:
    """Return the hash to keep; takes tens of milliseconds."""
    return _HASHER.hash(password)


def verify_password(kept: str | None, password: str) -> bool:
    """Return whether the password is the one behind `kept`; for an unknown user (None) the work is the same."""
    try:
        _HASHER.verify(_NOBODY if kept is None else kept, password[: LONGEST + 1])
    except (VerificationError, InvalidHashError):
        return False
    return kept is not None


_NOBODY = _HASHER.hash("the password of a user that does not exist")


class Throttle:
    """Slows down guessing: per key, `free` failures cost nothing, each further one doubles the wait. Times in seconds.

    At most `most` keys are remembered, the least recently used is forgotten first.
    """

    def __init__(self, free: int = 3, longest_s: float = 300.0, most: int = 10_000) -> None:
        self._free = free
        self._longest_s = longest_s
        self._most = most
        self._keys: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def enter(self, key: tuple[str, str], now: float) -> None:
        """Count an attempt as failed beforehand, so that many at once do not slip through; raise TooManyAttempts."""
        failures, until = self._keys.get(key, (0, 0.0))
        if now < until:
            raise TooManyAttempts("Too many wrong passwords.", hint=f"Wait {int(until - now) + 1} s and try again.")
        failures += 1
        wait_s = 0.0 if failures < self._free else min(self._longest_s, 2.0 ** min(failures - self._free, 16))
        self._keys[key] = (failures, now + wait_s)
        self._keys.move_to_end(key)
        while len(self._keys) > self._most:
            self._keys.popitem(last=False)

    def succeeded(self, key: tuple[str, str]) -> None:
        """Forget the failures of a key whose password was right."""
        self._keys.pop(key, None)

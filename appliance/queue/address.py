"""Addresses of the named broker, `lan/cluster/name`, and patterns over them.

Inside its own cluster a name is written short. `*` in a pattern stands for any run of characters except `/`, so a
pattern without slashes never reaches into another cluster.
"""

import re
from functools import lru_cache

import msgspec

from appliance.queue.errors import BadAddress

NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
PLACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
PATTERN = re.compile(r"[A-Za-z0-9_.*-]+|[a-z0-9*-]+/[a-z0-9*-]+/[A-Za-z0-9_.*-]+")
MAX_NAME = 200


class Home(msgspec.Struct, frozen=True):
    """The LAN and cluster whose names are written short."""

    lan: str
    cluster: str

    @property
    def place(self) -> str:
        """`lan/cluster`."""
        return f"{self.lan}/{self.cluster}"

    def short(self, text: str) -> str:
        """Return the address in its one canonical form: short in this cluster, else full. Raises BadAddress."""
        return self._short(parse(text, self))

    def _short(self, address: "Address") -> str:
        if (address.lan, address.cluster) == (self.lan, self.cluster):
            return address.name
        return str(address)

    def short_pattern(self, text: str) -> str:
        """Return the pattern in the form in which it matches canonical addresses. Raises BadAddress."""
        return check_pattern(text).removeprefix(f"{self.place}/")


class Address(msgspec.Struct, frozen=True):
    """An address in full; `str()` gives `lan/cluster/name`."""

    lan: str
    cluster: str
    name: str

    def __str__(self) -> str:
        return f"{self.lan}/{self.cluster}/{self.name}"


def parse(text: str, home: Home) -> Address:
    """Return the address that `text` writes in full or, inside `home`, short. Raises BadAddress."""
    parts = text.split("/")
    if len(parts) == 1:
        parts = [home.lan, home.cluster, text]
    if len(parts) != 3 or not PLACE.fullmatch(parts[0]) or not PLACE.fullmatch(parts[1]):
        raise BadAddress(f"`{text[:80]}` is not an address.")
    if len(parts[2]) > MAX_NAME or not NAME.fullmatch(parts[2]):
        raise BadAddress(f"`{parts[2][:80]}` is not the name of an address.")
    return Address(*parts)


def check_pattern(text: str) -> str:
    """Return the address or pattern as it is. Raises BadAddress."""
    if len(text) > MAX_NAME + 66 or not PATTERN.fullmatch(text):
        raise BadAddress(f"`{text[:80]}` is not a pattern of addresses.")
    return text


def is_foreign(canonical: str) -> bool:
    """Return whether a canonical address is in another cluster."""
    return "/" in canonical


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    first, *parts = (re.escape(part) for part in pattern.split("*"))
    # The leftmost place of each part is as good as any, so there is no way back into one that was passed: a pattern
    # that a peer made up costs no more than its length times the name's.
    passed = "".join(f"(?>[^/]*?{part})" for part in parts[:-1])
    return re.compile(first + passed + "".join(f"[^/]*{part}" for part in parts[-1:]))


def matches(pattern: str, name: str) -> bool:
    """Return whether a canonical address is one of those the pattern stands for."""
    return pattern == name or ("*" in pattern and _compiled(pattern).fullmatch(name) is not None)


def covers(patterns: tuple[str, ...], asked: str) -> bool:
    """Return whether every address that `asked` (an address or a pattern) stands for matches one of `patterns`.

    A `*` in `asked` is only covered by a `*`, so taking `asked` as plain text decides it; a union of several patterns
    that would only together cover it does not count.
    """
    return any(matches(pattern, asked) for pattern in patterns)

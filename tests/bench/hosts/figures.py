"""What is taken on a throwaway host, in the form in which it comes out of it."""

import msgspec

SIZES = (10, 50, 100, 200)
"""How many ARSRVs a machine that is made has; beside them are the namespaces that every machine has."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that was made from nothing: seconds, and of our own processor's.

    `held` is what the host held then, where that was asked for; `profile` where the time went.
    """

    took_s: float
    cpu_s: float = 0.0
    held: dict[str, list[str]] = {}
    profile: str = ""


class Splits(msgspec.Struct, frozen=True, kw_only=True):
    """All of them by number of servers, run by run; `different` says where both sides' results are not the same."""

    ours: dict[int, list[Split]]
    by_hand: dict[int, list[Split]]
    different: list[str] = []
    profiles: dict[int, str] = {}

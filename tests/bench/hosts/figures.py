"""What is taken on a throwaway host, in the form in which it comes out of it."""

import msgspec

SIZES = (10, 50, 100, 200)
"""How many ARSRVs a machine that is made has; beside them are the namespaces that every machine has."""

DRIFTED = (2, 200)
"""How many a machine has that is damaged: as many as there are by default, and as many as there may be."""


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


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What something took: seconds, and of the processor's."""

    took_s: float
    cpu_s: float


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """The supervisor's process while nothing happened: percent of one core, and megabytes of memory."""

    cpu_percent: float
    memory_mb: float
    peak_mb: float


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """What it costs that nothing is to be done.

    `asked` is a look at everything by the process, asked for with `alpha-ren plan`; `rounds` are rounds by themselves,
    by what was before: nothing (`untouched`), an event in one namespace (`touched`), a full resync (`everything`);
    `gauges` is no round, but a look at the control groups.
    """

    idles: tuple[Idle, ...]
    asked: tuple[Cost, ...]
    rounds: dict[str, list[Cost]]
    profiles: dict[str, str]


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A damage and its repair: seconds from the command to the kernel's event, from that to the repair's end, and what
    the supervisor itself says that it took.
    """

    told_s: float
    repaired_s: float
    said_s: float


class Drifts(msgspec.Struct, frozen=True, kw_only=True):
    """All of them by kind and number of servers."""

    taken: dict[str, dict[int, list[Drift]]]
    profiles: dict[str, str] = {}

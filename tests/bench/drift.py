"""How long a damage lasts: a veth that is deleted, a ruleset that is flushed, from the kernel's event to repaired."""

from statistics import median

import msgspec

from tests.bench.hosts.figures import Drift, Drifts
from tests.bench.measure import RESULTS, Measure
from tests.bench.peers import layer

TARGET_MS = 200
HOW = (
    "drift: milliseconds from the kernel's first event of a damage until the namespace's links, addresses, routes and "
    "the port on the host, or its rules, are as they were; seen by a listener of the bench, with so many ARSRVs, the "
    "supervisor's own process at rest before, a stand-in for systemd. median of {runs}. Where the time goes: "
    "build/bench/drift-….profile.txt (the supervisor under cProfile, for all repairs of that kind)."
)


def measures(quick: bool) -> list[Measure]:
    """One for each kind and number of servers."""
    runs = 1 if quick else 5
    figures = msgspec.json.decode(layer.alone("tests.bench.hosts.inside", "drift", str(runs)), type=Drifts)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, text in figures.profiles.items():
        (RESULTS / f"drift-{name}.profile.txt").write_text(text)
    return [
        found(kind, servers, drifts, HOW.format(runs=runs))
        for kind, sizes in figures.taken.items()
        for servers, drifts in sizes.items()
    ]


def found(kind: str, servers: int, drifts: list[Drift], how: str) -> Measure:
    """The measure of one kind of damage."""
    return Measure(
        measure=f"drift-{kind}-{servers}",
        unit="ms",
        ours=_ms(median(each.repaired_s for each in drifts)),
        better="lower",
        target=TARGET_MS,
        beside={
            "fastest": _ms(min(each.repaired_s for each in drifts)),
            "slowest": _ms(max(each.repaired_s for each in drifts)),
            "by the supervisor's own word": _ms(median(each.said_s for each in drifts)),
        },
        how=how,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)

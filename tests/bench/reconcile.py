"""What the supervisor costs at 200 ARSRVs while nothing is to be done: a round, a full resync, the process at rest."""

from statistics import median

import msgspec

from appliance.supervisor.events import look_again_s
from tests.bench.hosts.figures import Cost, Rest
from tests.bench.measure import RESULTS, Measure
from tests.bench.peers import layer

HOW = (
    "reconcile: 200 ARSRVs and the other components, with legs, rules, files and units, on a throwaway host in the "
    "firmware's tree; systemd is a stand-in at the system bus that starts nothing, control groups are files, nobody "
    "answers at the queue. noop: the configuration read, what should be formed, looked, compared, from the event-fed "
    "state; after an event: the same when a namespace was touched; resync: the same with everything looked at; in a "
    "process of its own. idle, memory: the supervisor's process, {windows} with at least one resync in each. "
    "median of {runs}; where the time goes is in build/bench/reconcile-….profile.txt (cProfile, five rounds)."
)


def measures(quick: bool) -> list[Measure]:
    """Round, resync, idle, memory."""
    runs = 1 if quick else 5
    figures = msgspec.json.decode(layer.alone("tests.bench.hosts.inside", "rest", str(runs)), type=Rest)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, text in figures.profiles.items():
        (RESULTS / f"reconcile-{name}.profile.txt").write_text(text)
    return found(figures, HOW.format(runs=runs, windows="five minutes" if quick else "25 minutes"))


def found(figures: Rest, how: str) -> list[Measure]:
    """The measures that follow from what was taken."""
    untouched, touched, everything = (figures.rounds[name] for name in ("untouched", "touched", "everything"))
    gauges, looks_s = middle(figures.rounds["gauges"]).cpu_s, middle(everything).cpu_s
    return [
        Measure(
            measure="reconcile-noop",
            unit="ms",
            ours=_ms(middle(untouched).took_s),
            better="lower",
            target=150,
            beside={**_beside(untouched), "after an event ms": _ms(middle(touched).took_s)},
            how=how,
        ),
        Measure(
            measure="reconcile-resync",
            unit="s",
            ours=round(middle(everything).took_s, 3),
            better="lower",
            target=3,
            beside={**_beside(everything), "`alpha-ren plan` s": round(middle(figures.asked).took_s, 3)},
            how=how,
        ),
        Measure(
            measure="reconcile-idle",
            unit="% of a core",
            ours=round(median(each.cpu_percent for each in figures.idles), 2),
            better="lower",
            target=1,
            beside={
                "resyncs %": round(looks_s / look_again_s(looks_s) * 100, 2),
                "gauges each ten seconds %": round(gauges / 10 * 100, 2),
            },
            how=how,
        ),
        Measure(
            measure="reconcile-memory",
            unit="MB",
            ours=round(median(each.memory_mb for each in figures.idles), 1),
            better="lower",
            target=80,
            beside={"at most MB": round(max(each.peak_mb for each in figures.idles), 1)},
            how=how,
        ),
    ]


def middle(costs: list[Cost] | tuple[Cost, ...]) -> Cost:
    """Return the medians."""
    return Cost(took_s=median(each.took_s for each in costs), cpu_s=median(each.cpu_s for each in costs))


def _beside(costs: list[Cost]) -> dict[str, float]:
    return {
        "fastest ms": _ms(min(each.took_s for each in costs)),
        "slowest ms": _ms(max(each.took_s for each in costs)),
        "processor ms": _ms(middle(costs).cpu_s),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)

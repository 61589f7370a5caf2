"""How long a durable publish takes at 2,000 messages a second, beside both peers."""

from statistics import median

import msgspec

from tests.bench.measure import Measure
from tests.bench.peers import layer
from tests.bench.peers.figures import Figures
from tests.bench.queue_rates import OWN_CLIENT, SYSTEMS

HOW = (
    "queue latency: from when a 1 KB message was to be sent until its acknowledgement, at 2,000 a second whatever the "
    "answers, median of {runs} runs of 4 s. " + SYSTEMS
)


def measures(quick: bool) -> list[Measure]:
    """p50 and p99 beside each peer's; no worse is the target."""
    runs = 1 if quick else 5
    figures = msgspec.json.decode(layer.run(layer.INSIDE, "latency", str(runs)), type=Figures)
    return [compared(figures, part, peer, runs) for part in ("p50", "p99") for peer in ("rabbitmq", "nats")]


def compared(figures: Figures, part: str, peer: str, runs: int) -> Measure:
    """Our median of one percentile beside a peer's."""
    ours, theirs = percentile(figures, part, "arq"), percentile(figures, part, peer)
    assert ours is not None
    return Measure(
        measure=f"queue-latency-{part}-{peer}",
        unit="ms",
        ours=ours,
        better="lower",
        peer_name=figures.titles.get(peer) or f"missing: {figures.missing[peer]}",
        peer=theirs,
        target=theirs,
        beside=beside(figures, part),
        how=HOW.format(runs=runs),
    )


def beside(figures: Figures, part: str) -> dict[str, float]:
    """Return what it is with the appliance's own client."""
    own = percentile(figures, part, OWN_CLIENT)
    return {} if own is None else {f"{OWN_CLIENT} ms": own}


def percentile(figures: Figures, part: str, system: str) -> float | None:
    """The median over the runs, None where the system is missing."""
    runs = [one.p50_ms if part == "p50" else one.p99_ms for one in figures.latencies if one.system == system]
    return round(median(runs), 3) if runs else None

"""Durable messages a second, published, and published and consumed, beside what a user would pick instead.

Every system syncs before it acknowledges, and all take their turn within each run.
"""

from statistics import median

import msgspec

from tests.bench.measure import RESULTS, Measure
from tests.bench.peers import layer
from tests.bench.peers.figures import KINDS, SIZES, WINDOWS, Case, Figures, Rate

TARGETS = {
    "rabbitmq": {1: 0.8, 64: 1.5, 1024: 1.5},
    "nats": {1: 0.8, 64: 6.0, 1024: 10.0},
    "sqlite": {64: 0.5, 1024: 0.5},
}
"""By peer and window: how many times the peer's rate ours has to be, at 1 KB."""
OWN_CLIENT = "own-client"
"""What our rate with the appliance's own client is called."""
SIZE_NAMES = {100: "100B", 1024: "1KB", 16384: "16KB"}
SYSTEMS = (
    "Ours: TCP encrypted with CURVE. RabbitMQ: a quorum queue with confirms; NATS: JetStream's file store with "
    "sync_interval always; both plain TCP. All three have clients that prepare frames and make no object per message; "
    "ours with the appliance's own client, which makes several, is beside. SQLite: WAL, synchronous=FULL, the same "
    "rows in batches of the window, in the one process that inserts. All sync before they acknowledge, on the same "
    "disk, on loopback, and take turns within each run."
)
HOW = (
    "queue-publish, queue-consume: messages a second of one producer, and of one producer and one consumer until the "
    "last message is settled, each in a process of its own; w is the window; median of {runs}; µs are processor time "
    "for each message, syncs are counted at 1 KB under strace, in a run of their own; where "
    "our own time goes is in build/bench/queue-….profile.txt. Peers are sent what there is room for in the window; "
    "ours gets batches of half the window, or of the whole where a consumer is at work too, of 256 at most. " + SYSTEMS
)


def measures(quick: bool) -> list[Measure]:
    """One for each load and peer."""
    runs = 1 if quick else 5
    figures = msgspec.json.decode(layer.run(layer.INSIDE, "rates", str(runs)), type=Figures)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, text in figures.profiles.items():
        (RESULTS / f"{name}.profile.txt").write_text(text)
    return [
        compared(figures, Case(kind=kind, size=size, window=window), peer, runs)
        for kind in KINDS
        for size in SIZES
        for window in WINDOWS
        for peer in TARGETS
    ]


def compared(figures: Figures, case: Case, peer: str, runs: int) -> Measure:
    """Our median beside a peer's."""
    ours, theirs = taken(figures.rates, case, "arq"), taken(figures.rates, case, peer)
    factor = TARGETS[peer].get(case.window) if case.size == 1024 else None
    rate = median(one.rate for one in theirs) if theirs else None
    beside: dict[str, float] = {}
    for name, those in (("ours", ours), (peer, theirs)):
        if runs > 1 and those:
            beside[f"{name}: lowest /s"] = round(min(one.rate for one in those))
            beside[f"{name}: highest /s"] = round(max(one.rate for one in those))
        if those:
            beside[f"{name}: clients µs"] = round(median(one.client_us for one in those), 1)
            beside[f"{name}: server µs"] = round(median(one.server_us for one in those), 1)
    if own := taken(figures.rates, case, OWN_CLIENT):
        beside[f"{OWN_CLIENT} /s"] = round(median(one.rate for one in own))
    for name, system in (("ours", "arq"), (peer, peer)):
        for one in taken(figures.syncs, case, system):
            beside[f"{name}: syncs a message"] = round(one.syncs, 4)
    return Measure(
        measure=f"queue-{case.kind}-{SIZE_NAMES[case.size]}-w{case.window}-{peer}",
        unit="messages/s",
        ours=round(median(one.rate for one in ours)),
        better="higher",
        peer_name=figures.titles.get(peer) or f"missing: {figures.missing[peer]}",
        peer=round(rate) if rate is not None else None,
        target=round(factor * rate) if factor is not None and rate is not None else None,
        beside=beside,
        how=HOW.format(runs=runs),
    )


def taken(rates: list[Rate], case: Case, system: str) -> list[Rate]:
    """The runs of one system under one load."""
    return [one for one in rates if one.case == case and one.system == system]

"""How long it takes to make 10, 50, 100 and 200 ARSRV namespaces from nothing, beside the same made by hand with
`ip -batch` and `nft -f`.
"""

from itertools import pairwise
from statistics import median

import msgspec

from tests.bench.hosts.figures import SIZES, Split, Splits
from tests.bench.measure import RESULTS, Measure
from tests.bench.peers import layer

FACTOR = 3.0
JUDGED = 100
BY_HAND = "ip -batch, nft -f"
HOW = (
    "split: seconds for so many ARSRV namespaces and the host's other ones, with legs, addresses, routes, rules and "
    "settings, on a throwaway host (a network and a mount namespace in the firmware's tree) without an uplink card, "
    "files and units. Ours: one round of the supervisor's own code, which looks, plans and takes the steps one by one. "
    "By hand: a shell script with one `ip -n NAME -batch` and one `nft -f` for each namespace, and one `ip -batch` "
    "each for all namespaces and for the host. Both sides take turns; median of {runs}. In the first run both results "
    "are read with ip and nft and are the same line by line, and the supervisor has no step to take on either."
)
GROWTH = (
    "split-growth: by how much the time for one namespace grows at most from one size to the next; 1 is linear. "
    "Where our time goes is in build/bench/split-….profile.txt (cProfile, which makes what is called often look dearer "
    "than it is)."
)


def measures(quick: bool) -> list[Measure]:
    """One for each size, and how it grows."""
    runs = 1 if quick else 5
    figures = msgspec.json.decode(layer.alone("tests.bench.hosts.inside", "split", str(runs)), type=Splits)
    if figures.different:
        raise RuntimeError("both sides made different machines:\n" + "\n".join(figures.different[:20]))
    RESULTS.mkdir(parents=True, exist_ok=True)
    for size, text in figures.profiles.items():
        (RESULTS / f"split-{size}.profile.txt").write_text(text)
    return [*(compared(figures, size, runs) for size in SIZES), grown(figures)]


def compared(figures: Splits, size: int, runs: int) -> Measure:
    """Our median beside that by hand."""
    ours, by_hand = figures.ours[size], figures.by_hand[size]
    peer = middle(by_hand)
    return Measure(
        measure=f"split-{size}",
        unit="s",
        ours=round(middle(ours), 3),
        better="lower",
        peer_name=BY_HAND,
        peer=round(peer, 3),
        target=round(FACTOR * peer, 3) if size == JUDGED else None,
        beside={
            "ours: fastest s": round(min(each.took_s for each in ours), 3),
            "ours: slowest s": round(max(each.took_s for each in ours), 3),
            "ours: processor s": round(median(each.cpu_s for each in ours), 3),
            "by hand: fastest s": round(min(each.took_s for each in by_hand), 3),
            "by hand: slowest s": round(max(each.took_s for each in by_hand), 3),
        },
        how=HOW.format(runs=runs),
    )


def grown(figures: Splits) -> Measure:
    """How much dearer a namespace gets where there are more."""
    return Measure(
        measure="split-growth",
        unit="times",
        ours=max(growth(figures.ours)),
        better="lower",
        peer_name=BY_HAND,
        peer=max(growth(figures.by_hand)),
        target=1.0,
        beside={
            f"{who}: {small} to {large}": times
            for who, splits in (("ours", figures.ours), ("by hand", figures.by_hand))
            for (small, large), times in zip(pairwise(sorted(splits)), growth(splits), strict=True)
        },
        how=GROWTH,
    )


def growth(splits: dict[int, list[Split]]) -> list[float]:
    """Return what one namespace costs at each size, divided by what it costs at the size before."""
    costs = [middle(splits[size]) / size for size in sorted(splits)]
    return [round(after / before, 3) for before, after in pairwise(costs)]


def middle(splits: list[Split]) -> float:
    """Return the median of the seconds."""
    return median(each.took_s for each in splits)

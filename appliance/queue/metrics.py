"""The queue's figures for Prometheus: its text format, version 0.0.4 (prometheus.io/docs/instrumenting/
exposition_formats).
"""

from collections.abc import Iterable, Iterator

from appliance.contracts.traffic import COMMIT_BOUNDS_S, Depth, QueueStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "alpha_ren_queue"

Sample = tuple[str, float]
"""What follows the name, labels and all, and the value."""

COUNTERS = (
    ("published", "Messages stored."),
    ("delivered", "Deliveries since the broker's start; a message that is tried again is delivered again."),
    ("done", "Messages that ended well."),
    ("dead", "Times that a message became a dead letter."),
    ("expired", "Messages whose time was over before they were taken."),
    ("purged", "Messages that an operator dropped."),
)


def exposition(stats: QueueStats) -> str:
    """Return everything that `queue.stats` says, as a scrape."""
    return "".join(line + "\n" for line in _lines(stats))


def _lines(stats: QueueStats) -> Iterator[str]:
    depths = stats.depths
    states = [_of(depth, getattr(depth, state), state) for depth in depths for state in ("ready", "leased", "dead")]
    yield from _family("messages", "gauge", "Messages that wait, are in hand, or are dead letters.", states)
    yield from _family("bytes", "gauge", "Bytes of the bodies held.", [_of(d, d.bytes) for d in depths])
    yield from _family("consumers", "gauge", "Consumers of an address.", [_of(d, d.consumers) for d in depths])
    for name, text in COUNTERS:
        samples = [_of(depth, getattr(depth, f"{name}_total")) for depth in depths]
        yield from _family(f"{name}_total", "counter", text, samples)
    for name, text, value in (
        ("busy", "1 while publishers are told to come back later.", stats.busy),
        ("sessions", "Clients that are connected.", stats.sessions),
        ("disk_free_bytes", "Room left on the queue's disk.", stats.disk_free),
        ("remembered_ids", "Ended messages of which a repeat is still known.", stats.remembered),
        ("remembered_seconds", "How long after its end a message is known for sure.", stats.remembered_s),
    ):
        yield from _family(name, "gauge", text, [("", value)])
    yield from _family("turns_total", "counter", "Rounds of the broker's loop.", [("", stats.turns)])
    yield from _family("commit_seconds", "histogram", "Commits, each one a sync of the disk.", _commits(stats))


def _commits(stats: QueueStats) -> Iterator[Sample]:
    within = 0
    for bound, number in zip(COMMIT_BOUNDS_S, stats.commits_within, strict=False):
        within += number
        yield f'_bucket{{le="{bound:g}"}}', within
    yield '_bucket{le="+Inf"}', stats.commits
    yield "_sum", stats.commit_s
    yield "_count", stats.commits


def _of(depth: Depth, value: float, state: str = "") -> Sample:
    address = depth.address.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{{address="{address}"' + (f',state="{state}"' if state else "") + "}", value


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{name} {text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"
    for labels, value in samples:
        yield f"{PREFIX}_{name}{labels} {float(value) if isinstance(value, float) else int(value)}"

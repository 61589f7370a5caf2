"""The queue's figures for Prometheus: its text format, version 0.0.4 (prometheus.io/docs/instrumenting/
exposition_formats).
"""

from collections.abc import Iterable, Iterator

from appliance.contracts.bridge import Backlog
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

ROUTES = (
    ("lag_seconds", "gauge", "Age of the oldest message for a cluster.", "lag_s"),
    ("sent_total", "counter", "Messages brought to a cluster since the bridge's start.", "sent_total"),
    ("sent_bytes_total", "counter", "Bytes of their bodies.", "bytes_total"),
    ("duplicate_total", "counter", "Those that the cluster had already.", "duplicate_total"),
    ("refused_total", "counter", "Messages that a cluster refused for good since the bridge's start.", "refused_total"),
)


def exposition(stats: QueueStats, backlogs: tuple[Backlog, ...] = ()) -> str:
    """Return everything that `queue.stats` says, and how the routes to other clusters fare, as a scrape."""
    lines = (*_lines(stats), *(_route_lines(backlogs) if backlogs else ()))
    return "".join(line + "\n" for line in lines)


def _lines(stats: QueueStats) -> Iterator[str]:
    depths = stats.depths
    states = [
        (_labels(address=depth.address, state=state), getattr(depth, state))
        for depth in depths
        for state in ("ready", "leased", "dead")
    ]
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


def _route_lines(backlogs: tuple[Backlog, ...]) -> Iterator[str]:
    """Yield how each route fares; while the bridge says nothing, what is known without it."""
    states = [
        (_labels(to=each.to, state=state), getattr(each, state)) for each in backlogs for state in ("waiting", "dead")
    ]
    yield from _family("route_messages", "gauge", "Messages for a cluster, in hand or not, and dead letters.", states)
    for name, text, values in (
        ("bytes", "Bytes of the bodies held for a cluster.", [each.bytes for each in backlogs]),
        ("connected", "1 while a cluster's broker answers.", [bool(b.route and b.route.connected) for b in backlogs]),
        ("problem", "1 while something holds a route up.", [not b.route or bool(b.route.problem) for b in backlogs]),
    ):
        samples = [(_labels(to=each.to), value) for each, value in zip(backlogs, values, strict=True)]
        yield from _family(f"route_{name}", "gauge", text, samples)
    heard = [each.route for each in backlogs if each.route]
    for name, kind, text, field in ROUTES:
        yield from _family(f"route_{name}", kind, text, [(_labels(to=r.to), getattr(r, field)) for r in heard])


def _commits(stats: QueueStats) -> Iterator[Sample]:
    within = 0
    for bound, number in zip(COMMIT_BOUNDS_S, stats.commits_within, strict=False):
        within += number
        yield f'_bucket{{le="{bound:g}"}}', within
    yield '_bucket{le="+Inf"}', stats.commits
    yield "_sum", stats.commit_s
    yield "_count", stats.commits


def _of(depth: Depth, value: float) -> Sample:
    return _labels(address=depth.address), value


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{name} {text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"
    for labels, value in samples:
        yield f"{PREFIX}_{name}{labels} {float(value) if isinstance(value, float) else int(value)}"

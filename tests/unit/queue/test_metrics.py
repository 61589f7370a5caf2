"""The figures for Prometheus: every line is of its text format, and says what the broker says."""

import re

import msgspec

from appliance.contracts.bridge import RoutesStatus, RouteStatus, backlogs
from appliance.contracts.traffic import COMMIT_BOUNDS_S, Depth, QueueStats
from appliance.queue.inspection import Meter
from appliance.queue.metrics import exposition

COMMENT = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)")
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? ([0-9.e+-]+)")
LABELS = re.compile(r'\{([a-z_][a-z0-9_]*="(?:[^"\\\n]|\\[\\"n])*")(,[a-z_][a-z0-9_]*="(?:[^"\\\n]|\\[\\"n])*")*\}')
SUFFIXES = ("_bucket", "_sum", "_count")


def parsed(text: str) -> tuple[dict[str, str], dict[str, float]]:
    """Return the type of each family and the value of each sample; fail where a line is not of the format 0.0.4.

    The lines of a family are one group, its HELP and TYPE in front of its samples; no sample is there twice.
    """
    assert text.endswith("\n")
    types: dict[str, str] = {}
    helped: set[str] = set()
    samples: dict[str, float] = {}
    family = ""
    for line in text.splitlines():
        if comment := COMMENT.fullmatch(line):
            what, name, rest = comment.groups()
            if what == "HELP":
                assert name not in helped, f"a second group of {name}"
                helped.add(name)
                family = name
            else:
                assert name == family
                assert rest in ("counter", "gauge", "histogram")
                assert rest != "counter" or name.endswith("_total")
                types[name] = rest
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        name, labels, value = sample.groups()
        assert not labels or LABELS.fullmatch(labels), line
        allowed = {family} if types[family] != "histogram" else {family + suffix for suffix in SUFFIXES}
        assert name in allowed, line
        assert name + (labels or "") not in samples, f"twice: {line}"
        samples[name + (labels or "")] = float(value)
    assert set(types) == helped
    return types, samples


def test_every_figure_is_there_under_its_address() -> None:
    meter = Meter()
    for seconds in (0.0004, 0.0005, 0.02, 99.0):
        meter.committed(seconds)
    depth = Depth(
        address="flow.orders.0", ready=3, leased=2, dead=1, bytes=77, done_total=10, dead_total=4, expired_total=5,
        purged_total=6, delivered_total=20, consumers=2,
    )  # fmt: skip
    stats = QueueStats(
        at=0.0, depths=(depth, Depth(address="lan/other/x")), sessions=4, busy=True, disk_free=2**33, remembered=21,
        remembered_s=60.5, turns=8, commits=meter.commits, commit_s=meter.commit_s, commits_within=meter.commits_within,
    )  # fmt: skip
    types, samples = parsed(exposition(stats))

    def value(name: str, **labels: str) -> float:
        inside = ",".join(f'{label}="{text}"' for label, text in labels.items())
        return samples[f"alpha_ren_queue_{name}" + (f"{{{inside}}}" if inside else "")]

    for state, number in (("ready", 3), ("leased", 2), ("dead", 1)):
        assert value("messages", address="flow.orders.0", state=state) == number
    for name, number in (
        ("bytes", 77), ("consumers", 2), ("published_total", 27), ("delivered_total", 20), ("done_total", 10),
        ("dead_total", 4), ("expired_total", 5), ("purged_total", 6),
    ):  # fmt: skip
        assert value(name, address="flow.orders.0") == number
        assert value(name, address="lan/other/x") == 0
    assert value("busy") == 1
    assert value("sessions") == 4
    assert value("disk_free_bytes") == 2**33
    assert value("remembered_ids") == 21
    assert value("remembered_seconds") == 60.5
    assert value("turns_total") == 8
    assert types["alpha_ren_queue_commit_seconds"] == "histogram"
    assert value("commit_seconds_bucket", le="0.0005") == 2
    assert value("commit_seconds_bucket", le="0.01") == 2
    assert value("commit_seconds_bucket", le="0.025") == 3
    assert value("commit_seconds_bucket", le="10") == 3
    assert value("commit_seconds_bucket", le="+Inf") == value("commit_seconds_count") == 4
    assert value("commit_seconds_sum") == 0.0004 + 0.0005 + 0.02 + 99.0


def test_the_classes_of_commits_only_ever_grow() -> None:
    stats = QueueStats(at=0.0, depths=(), commits=99, commits_within=(1,) * len(COMMIT_BOUNDS_S))
    _, samples = parsed(exposition(stats))
    buckets = [value for name, value in samples.items() if "_bucket" in name]
    assert buckets == sorted(buckets)
    assert len(buckets) == len(COMMIT_BOUNDS_S) + 1


def test_a_broker_without_any_message_has_figures_too() -> None:
    types, samples = parsed(exposition(QueueStats(at=0.0, depths=())))
    assert types["alpha_ren_queue_messages"] == "gauge"
    assert samples["alpha_ren_queue_commit_seconds_count"] == 0


def test_each_route_has_its_backlog_its_lag_and_whether_something_holds_it_up() -> None:
    stats = QueueStats(
        at=0.0,
        routes=("far/east", "far/west"),
        depths=(
            Depth(address="far/east/orders", ready=3, leased=2, bytes=70),
            Depth(address="far/east/stock", ready=1, dead=4, bytes=7),
            Depth(address="far/eastern/orders", ready=9, bytes=9),
            Depth(address="far", ready=9, bytes=9),
        ),
    )
    route = RouteStatus(
        to="far/east", endpoint="tcp://192.0.2.7:7156", connected=True, sent_total=12, bytes_total=99,
        duplicate_total=2, refused_total=4, lag_s=61.5,
    )  # fmt: skip

    def figures(*routes: RouteStatus) -> dict[str, float]:
        bridge = RoutesStatus(place="lan/main", public_key="", routes=routes)
        types, samples = parsed(exposition(stats, backlogs(stats, bridge)))
        assert types["alpha_ren_queue_route_refused_total"] == "counter"
        start = "alpha_ren_queue_route_"
        return {name.removeprefix(start): value for name, value in samples.items() if name.startswith(start)}

    held = {
        'messages{to="far/east",state="waiting"}': 6, 'messages{to="far/east",state="dead"}': 4,
        'bytes{to="far/east"}': 77,
        'messages{to="far/west",state="waiting"}': 0, 'messages{to="far/west",state="dead"}': 0,
        'bytes{to="far/west"}': 0, 'connected{to="far/west"}': 0, 'problem{to="far/west"}': 1,
    }  # fmt: skip
    said = {
        'lag_seconds{to="far/east"}': 61.5, 'sent_total{to="far/east"}': 12, 'sent_bytes_total{to="far/east"}': 99,
        'duplicate_total{to="far/east"}': 2, 'refused_total{to="far/east"}': 4,
    }  # fmt: skip
    assert figures(route) == held | said | {'connected{to="far/east"}': 1, 'problem{to="far/east"}': 0}
    away = msgspec.structs.replace(route, connected=False, problem="Not there.")
    assert figures(away) == held | said | {'connected{to="far/east"}': 0, 'problem{to="far/east"}': 1}
    assert figures() == held | {'connected{to="far/east"}': 0, 'problem{to="far/east"}': 1}


def test_where_there_is_no_route_no_figure_speaks_of_one() -> None:
    stats = QueueStats(at=0.0, depths=(Depth(address="far/east/left-over", ready=1),))
    assert "route" not in exposition(stats, backlogs(stats, None))


def test_an_address_cannot_break_out_of_its_label() -> None:
    _, samples = parsed(exposition(QueueStats(at=0.0, depths=(Depth(address='a"} 1\n\\'),))))
    assert 'alpha_ren_queue_bytes{address="a\\"} 1\\n\\\\"}' in samples

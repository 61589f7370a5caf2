"""The benches: what is missing or missed is said, and their parts work."""

import contextlib
import os

import pytest

from appliance.queue.logged_store import open_store
from tests.bench import drift, reconcile
from tests.bench.hosts.figures import Cost, Drift, Idle, Rest, Split
from tests.bench.hosts.inside import differences, taken
from tests.bench.measure import Measure, record, table
from tests.bench.peers import lean
from tests.bench.peers.figures import Case, Figures, Rate
from tests.bench.queue_rates import compared
from tests.bench.split import growth
from tests.unit.queue.running import running

CASE = Case(kind="publish", size=1024, window=64)


def rate(system: str, number: float) -> Rate:
    return Rate(system=system, case=CASE, rate=number)


def test_a_peer_that_is_missing_is_said_so() -> None:
    figures = Figures(missing={"rabbitmq": "no package"}, rates=[rate("arq", 1000)])
    measure = compared(figures, CASE, "rabbitmq", 1)
    assert (measure.peer, measure.ratio, measure.target) == (None, None, None)
    assert "missing: no package" in table([measure])
    assert record(measure, "machine", "commit").peer_name == "missing: no package"


def test_a_target_is_a_multiple_of_the_peers_median() -> None:
    rates = [rate("arq", 1400), rate("rabbitmq", 900), rate("rabbitmq", 1000), rate("rabbitmq", 1100)]
    measure = compared(Figures(titles={"rabbitmq": "RabbitMQ"}, rates=rates), CASE, "rabbitmq", 3)
    assert (measure.ratio, measure.target, measure.verdict) == (1.4, 1500, "missed")
    assert "missed" in table([measure])


def test_how_it_was_taken_is_said_once() -> None:
    measures = [Measure(measure=name, unit="s", ours=1, better="lower", how="on loopback") for name in ("a", "b")]
    assert table(measures).count("on loopback") == 1


def test_the_lean_client_publishes_and_settles_what_it_says() -> None:
    with running() as broker:
        producer, consumer = (lean.Client(broker.connection(), "bench", 4) for _ in range(2))
        consumer.consume(8)
        producer.send([b"%d" % number for number in range(20)])
        confirmed: list[int] = []
        bodies: list[bytes] = []
        while len(confirmed) < 20:
            confirmed += producer.confirmations()
        while len(bodies) < 20:
            bodies += consumer.deliveries()
        consumer.rest()
        assert (confirmed, bodies) == ([*range(1, 21)], [b"%d" % number for number in range(20)])
        assert not consumer.wait(0.0)
        for client in (producer, consumer):
            client.close()
        broker.kill()
        with contextlib.closing(open_store(broker.directory / "state/queue.sqlite")) as store:
            assert store.load().counts["bench"].done_total == 20


def test_what_a_namespace_costs_more_where_there_are_more_is_growth() -> None:
    took = {10: [1.0, 2.0, 9.0], 50: [10.0], 100: [30.0]}
    splits = {size: [Split(took_s=each) for each in those] for size, those in took.items()}
    assert growth(splits) == [1.0, 1.5]


@pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may")
def test_by_hand_and_by_the_supervisor_it_is_the_same_host() -> None:
    ours, by_hand = taken("ours", "1", "held"), taken("by-hand", "1", "held")
    assert set(ours.held) >= {"host", "ardpx", "arsrv-1"}
    assert any("link ifname=cluster" in line for line in ours.held["arsrv-1"])
    assert differences(ours, by_hand) == []


def test_a_line_that_only_one_host_holds_is_a_difference() -> None:
    one, other = Split(took_s=1, held={"a": ["x", "y"], "b": []}), Split(took_s=1, held={"a": ["x"], "b": ["z"]})
    assert differences(one, other) == ["a, ours: y", "b, by hand: z"]


def test_what_is_at_rest_is_judged_by_its_medians() -> None:
    rest = Rest(
        idles=tuple(Idle(cpu_percent=percent, memory_mb=70, peak_mb=90) for percent in (0.5, 1.5, 0.7)),
        asked=(Cost(took_s=4, cpu_s=2),),
        rounds={
            kind: [Cost(took_s=took_s, cpu_s=took_s / 2) for took_s in (0.1, 3.2, 3.1)]
            for kind in ("untouched", "touched", "everything", "gauges")
        },
        profiles={},
    )
    verdicts = {each.measure: (each.ours, each.verdict) for each in reconcile.found(rest, "")}
    assert verdicts == {
        "reconcile-noop": (3100, "missed"),
        "reconcile-resync": (3.1, "missed"),
        "reconcile-idle": (0.7, "met"),
        "reconcile-memory": (70, "met"),
    }


def test_a_repair_is_judged_by_its_median() -> None:
    drifts = [Drift(told_s=1, repaired_s=repaired_s, said_s=0.1) for repaired_s in (0.05, 0.19, 0.9)]
    measure = drift.found("veth", 200, drifts, "")
    assert (measure.ours, measure.verdict, measure.beside["slowest"]) == (190, "met", 900)

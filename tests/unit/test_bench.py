"""The table of measures: what is missing or missed is said."""

from tests.bench.measure import Measure, record, table
from tests.bench.peers.figures import Case, Figures, Rate
from tests.bench.queue_rates import compared

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

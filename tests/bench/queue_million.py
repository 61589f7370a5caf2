"""A million messages of 1 KB waiting: memory, and from the server's start to the first delivery, beside RabbitMQ."""

import msgspec

from tests.bench.measure import Measure
from tests.bench.peers import layer
from tests.bench.peers.figures import Figures, Million

PEER = "rabbitmq"
HOW = (
    "queue million: one run; memory is the resident memory of the server's processes, 5 s after the last publish; the "
    "restart is a clean stop, then counted from the start of the server until a client that was already trying has "
    "its first delivery."
)


def measures(quick: bool) -> list[Measure]:
    """Memory and restart."""
    figures = msgspec.json.decode(layer.run(layer.INSIDE, "million", "1"), type=Figures)
    found = {one.system: one for one in figures.millions}
    ours, theirs = found["arq"], found.get(PEER)
    restart = compared(figures, "restart", "s", ours.first_s, None if theirs is None else theirs.first_s)
    memory = compared(figures, "memory", "MB", ours.memory_mb, None if theirs is None else theirs.memory_mb)
    return [restart, memory]


def compared(figures: Figures, name: str, unit: str, ours: float, theirs: float | None) -> Measure:
    """One figure of ours beside the peer's; less is the target."""
    return Measure(
        measure=f"queue-million-{name}",
        unit=unit,
        ours=round(ours, 2),
        better="lower",
        peer_name=figures.titles.get(PEER) or f"missing: {figures.missing[PEER]}",
        peer=None if theirs is None else round(theirs, 2),
        target=None if theirs is None else round(theirs, 2),
        beside={key: value for one in figures.millions for key, value in beside(one).items()},
        how=HOW,
    )


def beside(one: Million) -> dict[str, float]:
    """What else was seen of a system."""
    return {
        f"{one.system}: filled at /s": round(one.fill_rate),
        f"{one.system}: clean stop s": round(one.stop_s, 2),
        f"{one.system}: memory after the restart MB": round(one.memory_again_mb, 1),
    }

"""What runs in the bench layer: `python3 -m tests.bench.peers.inside rates|latency|million RUNS`.

Takes all figures, the systems in turn within each run, and prints them as JSON.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import msgspec

from tests.bench.peers import processes, profiled, syncs
from tests.bench.peers.figures import (
    KINDS,
    SIZES,
    WINDOWS,
    Case,
    Figures,
    Kind,
    Latency,
    Million,
    Rate,
)
from tests.bench.peers.order import Order, Report
from tests.bench.peers.systems import Arq, Nats, OwnClient, Rabbitmq, Sqlite, System

SECONDS = 1.5
OWN_CLIENT_SIZE = 1024
"""The appliance's own client is measured with this size only, since it stands beside the figures."""
LATENCY_SECONDS = 4.0
LATENCY_RATE = 2000.0
MILLION = 1_000_000
LOAD_WITHIN_S = 300.0


class Load:
    """A load in a process of its own, which may be the argument of another program."""

    def __init__(self, action: str, order: Order, *, wrap: Sequence[str] = (sys.executable, "-m")) -> None:
        command = [*wrap, "tests.bench.peers.load", action]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(order))
        self.process.stdin.close()

    def wait_ready(self) -> None:
        """Return once it is subscribed."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line != b"ready\n":
            raise RuntimeError(f"the consumer did not begin: {line!r}")

    def report(self) -> Report:
        """Return what it did, at its end."""
        assert self.process.stdout is not None
        with self.process.stdout:
            text = self.process.stdout.read()
        if self.process.wait(LOAD_WITHIN_S) != 0:
            raise RuntimeError("a load ended with an error")
        return msgspec.json.decode(text, type=Report)


def loaded(system: System, kind: Kind, order: Order, **how: Sequence[str]) -> tuple[Report, float]:
    """Put one load on a system; return the whole of it, and the processor's seconds of all clients."""
    if system.name == "sqlite":
        report = Load("publish" if kind == "publish" else "both", order, **how).report()
        return report, report.cpu_s
    if kind == "publish":
        report = Load("publish", order, **how).report()
        return report, report.cpu_s
    consumer = Load("consume", order, **how)
    consumer.wait_ready()
    producer = Load("publish", msgspec.structs.replace(order, accompanied=True), **how).report()
    consumed = consumer.report()
    assert consumed.count == producer.count, f"{consumed.count} of {producer.count} messages were consumed"
    whole = Report(count=consumed.count, began=producer.began, ended=max(producer.ended, consumed.ended))
    return whole, producer.cpu_s + consumed.cpu_s


def measured(system: System, case: Case, queue: str) -> Rate:
    """Take one rate."""
    with system.fresh(queue) as fresh:
        order = msgspec.structs.replace(fresh, size=case.size, window=case.window, seconds=SECONDS)
        before = processes.cpu_s(system.roots)
        report, clients = loaded(system, case.kind, order)
        server = processes.cpu_s(system.roots) - before
    return Rate(
        system=system.name, case=case, rate=report.count / (report.ended - report.began),
        client_us=clients / report.count * 1e6, server_us=server / report.count * 1e6,
    )  # fmt: skip


def counted(system: System, case: Case, queue: str) -> float:
    """Return how many syncs there are per message, in a short run of its own, since counting slows a system down."""
    with system.fresh(queue) as fresh:
        order = msgspec.structs.replace(fresh, size=case.size, window=case.window, seconds=SECONDS)
        if system.name == "sqlite":
            report, _ = loaded(system, case.kind, order, wrap=[*syncs.STRACE, "-o", syncs.TRACE, sys.executable, "-m"])
            return syncs.found() / report.count
        with syncs.attached(system.roots):
            report, _ = loaded(system, case.kind, order)
        return syncs.found() / report.count


def rates(systems: list[System], runs: int) -> list[Rate]:
    """Take all rates: run by run, case by case, one system after the other."""
    cases = [Case(kind=kind, size=size, window=window) for kind in KINDS for size in SIZES for window in WINDOWS]
    taken: list[Rate] = []
    for run in range(runs):
        for case in cases:
            for system in systems:
                if system.name == OwnClient.name and case.size != OWN_CLIENT_SIZE:
                    continue
                taken.append(measured(system, case, f"bench-{run}-{len(taken)}"))
                say(f"{run + 1}/{runs} {case.kind} {case.size} B window {case.window}: {taken[-1].line}")
    return taken


def sync_counts(systems: list[System]) -> list[Rate]:
    """Count the syncs of each system at 1 KB."""
    taken: list[Rate] = []
    for kind in KINDS:
        for window in WINDOWS:
            for system in systems:
                if system.name == OwnClient.name:
                    continue
                case = Case(kind=kind, size=1024, window=window)
                per_message = counted(system, case, f"bench-syncs-{len(taken)}")
                taken.append(Rate(system=system.name, case=case, rate=0.0, syncs=per_message))
                say(f"{kind} window {window}: {system.name} {per_message:.3f} syncs per message")
    return taken


def profiles() -> dict[str, str]:
    """Look where our own time goes at 1 KB, under cProfile(1), which makes what is called often look dearer than it is.
    """
    found: dict[str, str] = {}
    for kind in KINDS:
        for window in WINDOWS:
            with Arq(profiled.PROFILED).fresh("bench-profile") as fresh:
                order = msgspec.structs.replace(fresh, window=window, seconds=SECONDS)
                loaded(Arq(), kind, order, wrap=profiled.PROFILED)
            found[f"queue-{kind}-1KB-w{window}"] = profiled.taken()
    return found


def latencies(systems: list[System], runs: int) -> list[Latency]:
    """Take the latencies of publishing at a steady rate."""
    taken: list[Latency] = []
    for run in range(runs):
        for system in systems:
            with system.fresh(f"bench-latency-{run}") as fresh:
                order = msgspec.structs.replace(fresh, seconds=LATENCY_SECONDS, rate=LATENCY_RATE)
                times = sorted(Load("paced", order).report().latencies)
            p50, p99 = (times[int(len(times) * part)] * 1000 for part in (0.5, 0.99))
            taken.append(Latency(system=system.name, p50_ms=p50, p99_ms=p99))
            say(f"{run + 1}/{runs} latency {system.name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return taken


def million(system: System) -> Million:
    """Fill a queue with a million messages, look at the memory, restart, and wait for the first delivery."""
    with system.fresh("bench-million") as fresh:
        order = msgspec.structs.replace(fresh, window=1024, seconds=0.0, count=MILLION)
        filled = Load("publish", order).report()
        time.sleep(5.0)  # what the system does on its own after a load is not the memory of waiting messages
        full = processes.resident_mb(system.roots)
        stopping = time.monotonic()
        system.stop()
        consumer = Load("first", order)
        starting = time.monotonic()
        system.start()
        delivered = consumer.report().ended
        again = processes.resident_mb(system.roots)
        result = Million(
            system=system.name, fill_rate=filled.count / (filled.ended - filled.began), memory_mb=full,
            stop_s=starting - stopping, first_s=delivered - starting, memory_again_mb=again,
        )  # fmt: skip
    say(f"million: {result}")
    return result


def say(line: str) -> None:
    """Let a person see that it moves."""
    print(f"  {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def running(systems: list[System]) -> Iterator[None]:
    """Start all systems; they are idle while it is another's turn."""
    with contextlib.ExitStack() as stack:
        for system in systems:
            system.start()
            stack.callback(system.stop)
        yield


def main() -> None:
    what, runs = sys.argv[1], int(sys.argv[2])
    beside: list[System] = [Arq(), OwnClient(), Rabbitmq(), Nats()]
    asked = {"rates": [*beside, Sqlite()], "latency": beside, "million": [Arq(), Rabbitmq()]}[what]
    missing: dict[str, str] = {system.name: system.missing for system in asked if system.missing}
    there = [system for system in asked if not system.missing]
    figures = Figures(titles={system.name: system.title for system in there}, missing=missing)
    with running(there):
        if what == "rates":
            figures.syncs = sync_counts(there) if syncs.available() else []
            figures.rates = rates(there, runs)
            figures.profiles = profiles()
        elif what == "latency":
            figures.latencies = latencies(there, runs)
        else:
            figures.millions = [million(system) for system in there]
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()

"""One load on one system, in a process of its own: `python3 -m tests.bench.peers.load ACTION < order`.

Prints what was done and when (the kernel's monotonic clock, which all processes share), as JSON.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from tests.bench.peers import amqp, arq, bare, lean, nats
from tests.bench.peers.order import Order, Report, last, ready, total_in


class Peer(Protocol):
    """A peer's client; see amqp.Client."""

    def wait(self, seconds: float) -> bool: ...
    def send(self, bodies: list[bytes]) -> None: ...
    def confirmations(self) -> list[int]: ...
    def consume(self, window: int) -> None: ...
    def deliveries(self) -> list[bytes]: ...
    def rest(self) -> None: ...


def publish(peer: Peer, order: Order) -> Report:
    """Publish with at most `window` unconfirmed, until the time is over or the count reached, and mark the last."""
    body = bytes(order.size)
    sent = confirmed = 0
    began = time.monotonic()
    until = began + order.seconds if order.seconds else float("inf")
    open_end = True
    while open_end or confirmed < sent:
        room = order.window - (sent - confirmed)
        if open_end and room:
            if order.count:
                room = min(room, order.count - sent)
            open_end = time.monotonic() < until and not (order.count and sent + room == order.count)
            bodies = [body] * room
            if not open_end:
                bodies[-1] = last(sent + room, order.size)
            peer.send(bodies)
            sent += room
        confirmed += len(peer.confirmations())
    return Report(count=sent, began=began, ended=time.monotonic())


def consume(peer: Peer, order: Order) -> Report:
    """Take and acknowledge until the one marked as the last."""
    peer.consume(order.window)
    ready()
    count, began = 0, 0.0
    while True:
        bodies = peer.deliveries()
        count += len(bodies)
        began = began or time.monotonic()
        if bodies and (total := total_in(bodies[-1])):
            assert count == total, f"{count} of {total} messages have come"
            peer.rest()
            return Report(count=count, began=began, ended=time.monotonic())


def paced(peer: Peer, order: Order) -> Report:
    """Publish at a rate, whatever the answers; latency counts from when a message was to be sent."""
    body = bytes(order.size)
    began = time.monotonic()
    total = int(order.rate * order.seconds)
    due = [began + number / order.rate for number in range(total)]
    latencies: list[float] = []
    sent = 0
    while len(latencies) < total:
        now = time.monotonic()
        ready_now = sent
        while ready_now < total and due[ready_now] <= now:
            ready_now += 1
        if ready_now > sent:
            peer.send([body] * (ready_now - sent))
            sent = ready_now
        wait = max(0.0, due[sent] - time.monotonic()) if sent < total else 60.0
        if peer.wait(wait):
            confirmed = peer.confirmations()
            now = time.monotonic()
            latencies += [now - due[number - 1] for number in confirmed]
    return Report(count=total, began=began, ended=time.monotonic(), latencies=latencies)


def first(peer: Peer, order: Order) -> Report:
    """Say when the first delivery came."""
    peer.consume(order.window)
    began = time.monotonic()
    while not peer.deliveries():
        pass
    return Report(count=1, began=began, ended=time.monotonic())


PEER_LOADS: dict[str, Callable[[Peer, Order], Report]] = {
    "publish": publish, "consume": consume, "paced": paced, "first": first,
}  # fmt: skip


def connected(order: Order) -> Peer:
    """Return the peer's client, as soon as the peer is up."""
    if order.connection is not None:
        return lean.Client(order.connection, order.queue, order.batch)
    make = amqp.Client if order.system == "rabbitmq" else nats.Client
    until = time.monotonic() + 120
    while True:
        try:
            return make(order.port, order.queue)
        except (OSError, RuntimeError):
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def run(action: str, order: Order) -> Report:
    """Carry out the load with the best client there is for the system."""
    if order.system == "own-client":
        return asyncio.run(arq.LOADS[action](order))
    if order.system == "sqlite":
        return bare.LOADS[action](order)
    return PEER_LOADS[action](connected(order), order)


def cpu_s() -> float:
    """Return the processor's seconds that this process has used, its input and output threads included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    before = cpu_s()
    report = run(sys.argv[1], order)
    report.cpu_s = cpu_s() - before
    print(msgspec.json.encode(report).decode(), flush=True)


if __name__ == "__main__":
    main()

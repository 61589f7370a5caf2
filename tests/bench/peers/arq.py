"""The appliance's own client under load, as an application would use it."""

import asyncio
import time
from collections.abc import Callable, Coroutine

from appliance.queue import wire
from appliance.queue.client import Delivery, QueueClient, new_id
from tests.bench.peers.order import Order, Report, last, ready, total_in


async def publish(order: Order) -> Report:
    """Publish with at most `window` unconfirmed, until the time is over or the count reached, and mark the last."""
    assert order.connection is not None
    async with QueueClient(order.connection) as queue:
        await queue.wait_connected(60)
        body = bytes(order.size)
        batch = order.batch
        sent = 0
        began = time.monotonic()
        until = began + order.seconds if order.seconds else float("inf")

        async def lane() -> None:
            nonlocal sent
            while time.monotonic() < until and (not order.count or sent + batch < order.count):
                sent += batch
                if batch == 1:
                    await queue.publish(order.queue, body)
                else:
                    await queue.publish_many(order.queue, [(new_id(), body) for _ in range(batch)], deadline_s=60)

        async with asyncio.TaskGroup() as group:
            for _ in range(order.window // batch):
                group.create_task(lane())
        sent += 1
        await queue.publish(order.queue, last(sent, order.size))
        return Report(count=sent, began=began, ended=time.monotonic())


async def consume(order: Order) -> Report:
    """Take and settle until the one marked as the last; ends when the broker has every end on disk.

    What comes while the ends of others are on their way is ended with the next message.
    """
    assert order.connection is not None
    async with QueueClient(order.connection) as queue:
        await queue.wait_connected(60)
        ready()
        count, total, began = 0, 0, 0.0
        handled: list[Delivery] = []
        news = asyncio.Event()

        async def take() -> None:
            nonlocal total, began
            async for delivery in queue.consume(order.queue, credit=order.window):
                began = began or time.monotonic()
                total = total or total_in(delivery.body)
                handled.append(delivery)
                news.set()

        async def settle() -> None:
            nonlocal count
            while not total or count < total:
                await news.wait()
                news.clear()
                while handled:
                    ended = handled[: wire.MAX_ITEMS]
                    del handled[: len(ended)]
                    await queue.settle_whole([wire.Outcome(d.token, wire.DONE) for d in ended], deadline_s=60)
                    count += len(ended)

        async with asyncio.TaskGroup() as group:
            taking = group.create_task(take())
            await settle()
            taking.cancel()
        return Report(count=count, began=began, ended=time.monotonic())


async def paced(order: Order) -> Report:
    """Publish at a rate, whatever the answers; latency counts from when a message was to be sent."""
    assert order.connection is not None
    async with QueueClient(order.connection) as queue:
        await queue.wait_connected(60)
        body = bytes(order.size)
        latencies: list[float] = []
        total = int(order.rate * order.seconds)

        async def one(due: float) -> None:
            await queue.publish(order.queue, body)
            latencies.append(time.monotonic() - due)

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(total):
                due = began + number / order.rate
                if due > time.monotonic():
                    await asyncio.sleep(due - time.monotonic())
                group.create_task(one(due))
        return Report(count=total, began=began, ended=time.monotonic(), latencies=latencies)


async def first(order: Order) -> Report:
    """Say when the first delivery came."""
    assert order.connection is not None
    async with QueueClient(order.connection) as queue:
        began = time.monotonic()
        async for delivery in queue.consume(order.queue, credit=order.window):
            ended = time.monotonic()
            await delivery.done()
            return Report(count=1, began=began, ended=ended)
    raise RuntimeError("no delivery came")


LOADS: dict[str, Callable[[Order], Coroutine[None, None, Report]]] = {
    "publish": publish, "consume": consume, "paced": paced, "first": first,
}  # fmt: skip

"""The client library used wrongly, interrupted, or let down: nobody else pays for it, nothing gets stuck."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import psutil
import pytest

from appliance.errors import ApplianceError, DeadlinePassed, InvalidInput
from appliance.queue.client import PublishUnknown, QueueClient, RemoteError, Request
from appliance.queue.errors import BadAddress, BodyTooLarge
from tests.ports import free_port
from tests.unit.queue.running import ALL, Broker, running
from tests.unit.queue.test_work import SOON_S, first, wait_account

Operation = Callable[[QueueClient], Awaitable[object]]


async def never(_request: Request) -> None:
    return None


IMPOSSIBLE: dict[str, Operation] = {
    "an id that is too long": lambda q: q.publish("a", b"", id="x" * 201),
    "an id that is no text": lambda q: q.publish("a", b"", id="\ud800"),
    "an address that is too long": lambda q: q.publish("a" * 300, b""),
    "an empty key": lambda q: q.publish("a", b"", key=""),
    "a delay below zero": lambda q: q.publish("a", b"", delay_s=-1),
    "a delay that is no number": lambda q: q.publish("a", b"", delay_s=float("nan")),
    "no attempt at all": lambda q: q.publish("a", b"", max_attempts=0),
    "many with one that is wrong": lambda q: q.publish_many("a", [("1", b""), ("y" * 201, b"")]),
    "a body that is too large": lambda q: q.publish("a", b"x" * 2001),
    "no credit": lambda q: first(q.consume("a", credit=0)),
    "an empty pattern": lambda q: first(q.consume("")),
    "events of an empty pattern": lambda q: first(q.events("")),
    "an empty topic": lambda q: q.emit("", b""),
    "an event that is too large": lambda q: q.emit("a", b"x" * 2001),
    "a call to nobody": lambda q: q.call("", None, str),
    "a call that is too large": lambda q: q.call("a", b"x" * 2001, str),
    "a deadline below zero": lambda q: q.call("a", None, str, deadline_s=-1),
    "a name that is none": lambda q: q.serve("a b", never),
}


@pytest.fixture(scope="module")
def narrow() -> Iterator[Broker]:
    """A broker that takes small bodies only."""
    with running(max_body=2000) as started:
        yield started


@pytest.mark.parametrize("operation", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_would_end_the_session_is_refused_to_who_asks(narrow: Broker, operation: Operation) -> None:
    name = f"asker-{len(narrow.clients)}"
    narrow.grant(name, ALL)

    async def main() -> None:
        async with narrow.client(name) as q:
            await q.wait_connected(SOON_S)
            with pytest.raises(InvalidInput):
                await operation(q)
            await q.publish("a", b"")
            delivery = await first(q.consume("a"))
            with pytest.raises(InvalidInput):
                await delivery.retry(float("inf"), "later")
            with pytest.raises(InvalidInput):
                await q.move(delivery, "b", b"", key="")
            await delivery.done()

    asyncio.run(main())
    assert "not the protocol" not in narrow.log()
    assert narrow.log().count(f"{name} is here") == 1


def test_a_body_that_never_fits_is_one_error_whoever_finds_out() -> None:
    async def main(broker: Broker) -> None:
        async with broker.client() as q:
            await q.wait_connected(SOON_S)
            for size in (60, 101):
                with pytest.raises(BodyTooLarge) as refused:
                    await q.publish("a", b"x" * size)
                assert refused.value.problem.status == 413
                assert f"{size} bytes" in refused.value.message

    with running(max_body=100, limits=[{"pattern": "a", "max_bytes": 50}]) as broker:
        asyncio.run(main(broker))


def test_a_body_that_turns_out_too_large_on_connecting_does_not_keep_the_others_out() -> None:
    async def main(broker: Broker) -> None:
        async with broker.client() as q:  # not connected yet, so nobody knows how large is too large
            large = asyncio.create_task(q.publish("a", b"x" * (100 + 2**16 + 1), deadline_s=SOON_S))
            await q.publish("a", b"small", deadline_s=SOON_S)
            with pytest.raises(InvalidInput):
                await large

    with running(max_body=100) as broker:
        asyncio.run(main(broker))
        assert broker.log().count("is here") == 1


def test_an_answer_that_is_too_large_and_a_timeout_of_the_handlers_own_are_errors_of_that_call_only() -> None:
    async def large(_request: Request) -> bytes:
        return b"x" * 70_000

    async def late(_request: Request) -> None:
        raise TimeoutError

    async def main(broker: Broker) -> None:
        async with broker.client() as server, broker.client() as q:
            await server.serve("lan/main/large", large)
            await server.serve("late", late)
            for name, code in (("large", "body-too-large"), ("late", "internal-error"), ("large", "body-too-large")):
                with pytest.raises(RemoteError) as error:
                    await q.call(name, None, bytes, deadline_s=SOON_S)
                assert error.value.problem.code == code

    with running(max_body=2000) as broker:
        asyncio.run(main(broker))
        assert broker.log().count("is here") == 2


def test_a_delivery_that_is_let_go_of_unsettled_is_given_back(hasty: Broker) -> None:
    async def work(q: QueueClient, started: asyncio.Event) -> None:
        async for _delivery in q.consume("dropped", credit=1):
            started.set()
            await asyncio.sleep(SOON_S)

    async def main() -> None:
        async with hasty.client() as q:
            await q.publish("dropped", b"", id="1")
            started = asyncio.Event()
            worker = asyncio.create_task(work(q, started))
            await started.wait()
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker
            delivery = await first(q.consume("dropped"))
            assert (delivery.id, delivery.attempt) == ("1", 2)
            await asyncio.sleep(1.0)  # two leases: who holds on to it keeps it
            await delivery.done()

    asyncio.run(main())


def test_stored_duplicate_and_unknown_are_three_different_answers() -> None:
    async def main(broker: Broker) -> None:
        async with broker.client() as q:
            with pytest.raises(PublishUnknown) as unknown:
                await q.publish("a", b"", id="1", deadline_s=0.1)
            assert unknown.value.ids == ("1",)
            with pytest.raises(DeadlinePassed):
                await q.wait_connected(0.1)
            pending = asyncio.create_task(q.publish("a", b"", id="1", deadline_s=SOON_S))
            await asyncio.to_thread(broker.start)
            assert not (await pending).duplicate
            assert (await q.publish("a", b"", id="1")).duplicate

    with running() as broker:
        broker.stop()
        asyncio.run(main(broker))


def test_a_broker_that_is_not_there_is_sought_for_ever_and_leaving_does_not_wait_for_it(broker: Broker) -> None:
    async def main() -> None:
        async with asyncio.timeout(SOON_S):
            nowhere = msgspec.structs.replace(broker.connection(), endpoint=f"tcp://127.0.0.1:{free_port()}")
            async with QueueClient(nowhere) as q:
                with pytest.raises(PublishUnknown):
                    await q.publish("a", b"", deadline_s=0.2)

    asyncio.run(main())


def test_a_slow_application_holds_no_more_than_its_credit(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q, broker.client() as slow:
            await q.publish_many("many", [(f"many-{n}", b"") for n in range(300)])
            deliveries = slow.consume("many", credit=7)
            held = [await first(deliveries)]
            await wait_account(q, "many", ready=293, leased=7)
            await held[0].done()
            await wait_account(q, "many", ready=292, leased=7)

    asyncio.run(main())


class Turmoil:
    """Everything a client can do, in tasks that are cancelled wherever they happen to be."""

    def __init__(self) -> None:
        self.chance = random.Random(7)
        self.acknowledged: set[str] = set()
        self.seen: set[str] = set()
        self._numbers = itertools.count()

    async def run(self, clients: tuple[QueueClient, ...], tasks: int) -> None:
        operations = (self.publish, self.publish, self.publish_many, self.consume, self.consume, self.talk, self.serve)
        under_way: list[asyncio.Task[None]] = []
        for _ in range(tasks):
            operation = self.chance.choice(operations)
            under_way.append(asyncio.create_task(operation(self.chance.choice(clients))))
            await asyncio.sleep(self.chance.choice((0, 0, 0.001, 0.005)))
            if len(under_way) > 5:
                await _cancel([under_way.pop(self.chance.randrange(5))])
        await _cancel(under_way)

    async def publish(self, q: QueueClient) -> None:
        name = f"m{next(self._numbers)}"
        await q.publish("any", b"x", id=name, max_attempts=1000)
        self.acknowledged.add(name)

    async def publish_many(self, q: QueueClient) -> None:
        names = [f"m{next(self._numbers)}" for _ in range(5)]
        await q.publish_many("any", [(name, b"x") for name in names])
        self.acknowledged.update(names)

    async def consume(self, q: QueueClient) -> None:
        async for delivery in q.consume("any", credit=self.chance.randint(1, 4)):
            self.seen.add(delivery.id)
            how = self.chance.random()
            if how < 0.2:
                await delivery.retry(0, "again")
            elif how < 0.4:
                await q.move(delivery, "moved", b"", id=f"moved-{delivery.id}")
            else:
                await delivery.done()

    async def talk(self, q: QueueClient) -> None:
        await q.emit("topic", b"")
        await first(q.events("topic"))
        with contextlib.suppress(ApplianceError):
            await q.call("echo", None, str, deadline_s=1.0)

    async def serve(self, q: QueueClient) -> None:
        await q.serve("echo", never)

    async def finish(self, q: QueueClient) -> None:
        """Take what is left, until nothing waits and nothing is in anybody's hands."""
        taking = asyncio.create_task(self._take(q))
        await wait_account(q, "any", ready=0, leased=0, dead=0)
        await _cancel([taking])

    async def _take(self, q: QueueClient) -> None:
        async for delivery in q.consume("any", credit=64):
            self.seen.add(delivery.id)
            await delivery.done()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_cancelling_anything_at_any_point_loses_nothing_and_leaves_nothing(hasty: Broker) -> None:
    async def main(turmoil: Turmoil) -> None:
        async with hasty.client() as q, hasty.client() as other:
            await turmoil.run((q, other), 400)
            await turmoil.finish(q)
            await wait_account(q, "moved", leased=0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    before = psutil.Process().num_fds()
    turmoil = Turmoil()
    asyncio.run(main(turmoil))
    assert turmoil.acknowledged <= turmoil.seen
    assert len(turmoil.acknowledged) > 50
    assert psutil.Process().num_fds() <= before


def test_an_unusable_pattern_ends_the_iteration_and_not_the_client(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            with pytest.raises(BadAddress):
                await first(q.consume("a b"))
            with pytest.raises(BadAddress):
                await first(q.events("lan/main"))
            await q.publish("fine", b"")

    asyncio.run(main())

"""Work through a real broker process: stored before acknowledged, leased, redelivered, ended once."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
import pytest

from appliance.contracts.notice import Notice
from appliance.contracts.traffic import Depth, Messages, QueueStats, RecentQuery
from appliance.errors import InvalidInput
from appliance.queue import wire
from appliance.queue.client import Delivery, LeaseLost, PublishUnknown, QueueBusy, QueueClient
from appliance.queue.errors import BadAddress, NoRoute
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import Broker, running

T = TypeVar("T")
SOON_S = 15.0


class Order(msgspec.Struct):
    number: int


async def first(iterator: AsyncIterator[T]) -> T:
    async with asyncio.timeout(SOON_S):
        return await anext(iterator)


async def account(q: QueueClient, address: str) -> Depth | None:
    stats = await q.call("queue.stats", None, QueueStats)
    return next((entry for entry in stats.depths if entry.address == address), None)


async def wait_account(q: QueueClient, address: str, **expected: int) -> None:
    async with asyncio.timeout(SOON_S):
        while True:
            entry = await account(q, address)
            if entry is not None and all(getattr(entry, name) == value for name, value in expected.items()):
                return
            await asyncio.sleep(0.02)


def test_a_message_is_stored_delivered_and_done(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            assert not (await q.publish("simple", Order(7), id="a")).duplicate
            delivery = await first(q.consume("simple"))
            assert (delivery.id, delivery.origin, delivery.address, delivery.attempt) == ("a", "tester", "simple", 1)
            assert delivery.decode(Order) == Order(7)
            with pytest.raises(InvalidInput):
                delivery.decode(str)
            await delivery.done()
            await wait_account(q, "simple", ready=0, leased=0, done_total=1)

    asyncio.run(main())


def test_a_repeated_id_is_a_duplicate_and_no_second_message(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            assert not (await q.publish("twice", b"1", id="twice")).duplicate
            assert (await q.publish("twice", b"1", id="twice")).duplicate
            many = await q.publish_many("twice", [("twice", b"1"), ("thrice", b"2"), ("thrice", b"2")])
            assert [p.duplicate for p in many] == [True, False, True]
            await wait_account(q, "twice", ready=2)
            delivery = await first(q.consume("twice", credit=1))
            await delivery.done()
            assert (await q.publish("twice", b"1", id=delivery.id)).duplicate

    asyncio.run(main())


def test_what_was_acknowledged_survives_sigkill() -> None:
    async def publish(broker: Broker) -> None:
        async with broker.client() as q:
            await q.publish_many("safe", [(f"m{n}", str(n).encode()) for n in range(200)])
            broker.kill()

    async def consume(broker: Broker) -> None:
        async with broker.client() as q:
            assert (await q.publish("safe", b"0", id="m0")).duplicate
            seen = []
            async with asyncio.timeout(SOON_S):
                async for delivery in q.consume("safe"):
                    seen.append(delivery.body)
                    await delivery.done()
                    if len(seen) == 200:
                        break
            assert seen == [str(n).encode() for n in range(200)]

    with running() as broker:
        asyncio.run(publish(broker))
        broker.start()
        asyncio.run(consume(broker))


def test_a_lapsed_lease_goes_to_another_and_the_late_done_is_refused(hasty: Broker) -> None:
    async def main(silent: Peer) -> None:
        async with hasty.client() as q:
            await q.publish("lapse", b"x", id="a")
            held = await asyncio.to_thread(silent.take, "lapse")
            assert held.attempt == 1
            delivery = await first(q.consume("lapse"))
            assert (delivery.id, delivery.attempt) == ("a", 2)
            await asyncio.to_thread(silent.hello)
            late = await asyncio.to_thread(silent.settle, held.token)
            assert late.statuses == (wire.STALE,)
            await delivery.done()
            await wait_account(q, "lapse", ready=0, leased=0, done_total=1)

    with Peer(hasty.connection()) as silent:
        asyncio.run(main(silent))


def test_a_lease_lasts_as_long_as_the_consumer_is_heard(hasty: Broker) -> None:
    async def main() -> None:
        async with hasty.client() as slow, hasty.client() as other:
            await slow.publish("slow", b"x")
            delivery = await first(slow.consume("slow"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):  # three leases
                    await anext(other.consume("slow"))
            await delivery.done()
            await wait_account(slow, "slow", done_total=1)

    asyncio.run(main())


def test_a_done_said_twice_is_fine_and_by_somebody_else_is_not(broker: Broker) -> None:
    broker.grant("other", broker.clients["tester"][1])
    with Peer(broker.connection()) as mine, Peer(broker.connection("other")) as other:
        mine.publish("repeat", "repeat-1")
        held = mine.take("repeat")
        assert other.settle(held.token).statuses == (wire.STALE,)
        assert mine.settle(held.token).statuses == (wire.STORED,)
        assert mine.settle(held.token).statuses == (wire.STORED,)
        assert mine.settle(held.token, wire.RETRY).statuses == (wire.STALE,)


def test_retry_delivers_again_after_the_delay(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            await q.publish("again", b"x", id="again")
            deliveries = q.consume("again")
            delivery = await first(deliveries)
            loop = asyncio.get_running_loop()
            before = loop.time()
            await delivery.retry(0.4, "not yet")
            delivery = await first(deliveries)
            assert loop.time() - before >= 0.4
            assert (delivery.id, delivery.attempt) == ("again", 2)
            await delivery.done()

    asyncio.run(main())


def test_a_delayed_publish_waits_and_an_old_one_expires(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            loop = asyncio.get_running_loop()
            before = loop.time()
            await q.publish("later", b"x", delay_s=0.4)
            await q.publish("stale", b"x", expires_s=0.2)
            delivery = await first(q.consume("later"))
            assert loop.time() - before >= 0.4
            await delivery.done()
            await wait_account(q, "stale", ready=0, leased=0, expired_total=1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(q.consume("stale"))

    asyncio.run(main())


def test_the_last_attempt_makes_a_dead_letter_and_a_notice_in_one_transaction() -> None:
    async def fail(broker: Broker) -> None:
        async with broker.client() as q:
            await q.publish("doomed", b"x", id="lost", max_attempts=2)
            deliveries = q.consume("doomed")
            await (await first(deliveries)).retry(0, "no answer")
            await (await first(deliveries)).retry(0, "still no answer")
            broker.kill()

    async def look(broker: Broker) -> None:
        async with broker.client() as q:
            dead = await account(q, "doomed")
            assert dead is not None
            assert (dead.dead, dead.ready, dead.dead_total) == (1, 0, 1)
            notice = await first(q.consume("notice.mail"))
            mail = notice.decode(Notice)
            assert "doomed" in mail.subject
            assert "lost" in mail.body
            assert "still no answer" in mail.body
            await notice.reject("the mail server refuses it")
            await wait_account(q, "notice.mail", ready=0, leased=0, dead=1)
            recent = await q.call("queue.recent", RecentQuery(limit=10), Messages)
            by_address = {m.address: m for m in recent.messages}
            assert len(recent.messages) == 2
            assert (by_address["doomed"].state, by_address["doomed"].attempt) == ("dead", 2)
            assert by_address["doomed"].reason == "still no answer"

    with running() as broker:
        asyncio.run(fail(broker))
        broker.start()
        asyncio.run(look(broker))


def test_move_publishes_and_ends_together_and_keeps_the_origin(broker: Broker) -> None:
    broker.grant("worker", broker.clients["tester"][1])

    async def main() -> None:
        async with broker.client() as q, broker.client("worker") as w:
            await q.publish("stage.0", b"x", id="journey")
            delivery = await first(w.consume("stage.0"))
            moved = await w.move(delivery, "stage.1", b"y", id="journey-1")
            assert not moved.duplicate
            assert (await w.move(delivery, "stage.1", b"y", id="journey-1")).duplicate
            with pytest.raises(LeaseLost):
                await w.move(delivery, "stage.1", b"y", id="journey-2")
            after = await first(q.consume("stage.1"))
            assert (after.id, after.origin, after.body) == ("journey-1", "tester", b"y")
            await after.done()
            await wait_account(q, "stage.0", ready=0, leased=0, done_total=1)
            await wait_account(q, "stage.1", ready=0, leased=0, done_total=1)

    asyncio.run(main())


def test_a_move_that_is_refused_leaves_the_delivery_in_hand() -> None:
    async def main(broker: Broker) -> None:
        async with broker.client() as q:
            await q.publish("from", b"x")
            await q.publish("full", b"x")
            delivery = await first(q.consume("from"))
            with pytest.raises(QueueBusy) as busy:
                await q.move(delivery, "full", b"y")
            assert busy.value.retry_after_s > 0
            await delivery.done()

    with running(max_depth=1) as broker:
        asyncio.run(main(broker))


def test_busy_at_the_limits_and_nothing_is_stored() -> None:
    async def main(broker: Broker) -> None:
        async with broker.client() as q:
            await q.publish_many("deep", [("1", b""), ("2", b"")])
            with pytest.raises(QueueBusy):
                await q.publish("deep", b"", id="3")
            await q.publish("other", b"x" * 600)
            with pytest.raises(QueueBusy):
                await q.publish("other", b"x" * 600)
            delivery = await first(q.consume("deep"))
            await delivery.done()
            assert not (await q.publish("deep", b"", id="3")).duplicate

    with running(max_depth=2, max_bytes=1000) as broker:
        asyncio.run(main(broker))


def test_a_disk_without_room_makes_publishers_wait_but_lets_consumers_go_on() -> None:
    async def fill(broker: Broker) -> None:
        async with broker.client() as q:
            await q.publish("work", b"x")

    async def main(broker: Broker) -> None:
        async with broker.client() as q:
            with pytest.raises(QueueBusy):
                await q.publish("work", b"y")
            await (await first(q.consume("work"))).done()
            assert (await q.call("queue.stats", None, QueueStats)).busy

    with running() as broker:
        asyncio.run(fill(broker))
        broker.stop()
        broker.settings["min_free_bytes"] = 2**60
        broker.start()
        asyncio.run(main(broker))


def test_messages_of_one_key_come_one_at_a_time_in_order(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            for n in range(3):
                await q.publish("keyed", str(n).encode(), key="customer")
            await q.publish("keyed", b"free")
            deliveries = q.consume("keyed")
            zero, free = await first(deliveries), await first(deliveries)
            assert (zero.body, free.body) == (b"0", b"free")
            await zero.retry(0.2, "later")
            again = await first(deliveries)
            assert (again.body, again.attempt) == (b"0", 2)
            await again.done()
            one = await first(deliveries)
            assert one.body == b"1"
            await one.done()
            await free.done()
            await (await first(deliveries)).done()

    asyncio.run(main())


def test_leaving_gives_deliveries_back_and_counts_only_failed_attempts(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            await q.publish_many("left", [("left-1", b"1"), ("left-2", b"2")])
            async with broker.client() as leaver:
                assert (await first(leaver.consume("left", credit=2))).id == "left-1"
            with contextlib.suppress(RuntimeError):
                async with broker.client() as failer:
                    deliveries = failer.consume("left", credit=2)
                    assert (await first(deliveries)).attempt == 1
                    raise RuntimeError
            deliveries = q.consume("left", credit=2)
            got = {d.id: d.attempt for d in [await first(deliveries), await first(deliveries)]}
            assert got == {"left-1": 2, "left-2": 1}

    asyncio.run(main())


def test_a_consumer_that_stops_iterating_gives_back_what_it_had_not_seen(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q, broker.client() as other:
            await q.publish_many("half", [(f"half-{n}", b"") for n in range(4)])
            deliveries = q.consume("half", credit=4)
            seen = await first(deliveries)
            await deliveries.aclose()
            theirs = other.consume("half", credit=4)
            rest = [await first(theirs) for _ in range(3)]
            assert {d.id for d in rest} == {"half-1", "half-2", "half-3"}
            assert {d.attempt for d in rest} == {1}
            await seen.done()

    asyncio.run(main())


def test_work_goes_on_across_a_restart_of_the_broker() -> None:
    async def main(broker: Broker) -> None:
        async with broker.client() as q:
            await q.publish("on", b"1", id="1")
            deliveries = q.consume("on")
            held = await first(deliveries)
            assert await asyncio.to_thread(broker.stop) == 0
            pending = asyncio.create_task(q.publish("on", b"2", id="2", deadline_s=SOON_S))
            done = asyncio.create_task(held.done(deadline_s=SOON_S))
            await asyncio.to_thread(broker.start)
            await done
            assert not (await pending).duplicate
            assert (await first(deliveries)).id == "2"
            entry = await account(q, "on")
            assert entry is not None
            assert (entry.done_total, entry.leased) == (1, 1)

    with running() as broker:
        asyncio.run(main(broker))


def test_a_publish_without_a_broker_is_unknown_and_names_its_ids(broker: Broker) -> None:
    async def main() -> None:
        async with QueueClient(msgspec.structs.replace(broker.connection(), endpoint="tcp://127.0.0.1:9")) as q:
            with pytest.raises(PublishUnknown) as unknown:
                await q.publish("nowhere", b"", id="n", deadline_s=0.2)
            assert unknown.value.ids == ("n",)
            with pytest.raises(PublishUnknown) as unknown:
                await q.publish_many("nowhere", [("n", b""), ("m", b"")], deadline_s=0.2)
            assert unknown.value.ids == ("n", "m")

    asyncio.run(main())


def test_a_broker_that_stood_still_for_longer_than_a_lease_does_not_take_leases_away(hasty: Broker) -> None:
    async def main() -> None:
        async with hasty.client() as q, hasty.client() as other:
            await q.publish("frozen", b"", id="frozen")
            mine = q.consume("frozen")
            delivery = await first(mine)
            theirs: asyncio.Task[Delivery] = asyncio.create_task(anext(other.consume("frozen")))
            await wait_account(other, "frozen", leased=1, consumers=2)
            hasty.signal(signal.SIGSTOP)
            await asyncio.sleep(2.5)  # the pause itself, longer than lease and grace
            hasty.signal(signal.SIGCONT)
            await delivery.done()
            await wait_account(other, "frozen", ready=0, leased=0, done_total=1)
            assert not theirs.done()
            theirs.cancel()

    asyncio.run(main())


def test_bad_addresses_and_other_clusters_are_refused(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            with pytest.raises(BadAddress):
                await q.publish("no spaces", b"")
            with pytest.raises(BadAddress):
                await first(q.consume("a b"))
            broker.grant("far", msgspec.structs.replace(broker.clients["tester"][1], publish=("*/*/*",)))
            async with broker.client("far") as far:
                with pytest.raises(NoRoute):
                    await far.publish("lan2/east/name", b"")
            await q.publish("lan/main/own", b"", id="own")
            assert (await first(q.consume("lan/main/own"))).address == "own"

    asyncio.run(main())


def test_sigterm_ends_the_broker_cleanly() -> None:
    with running() as broker:
        assert broker.stop() == 0
        assert "Traceback" not in broker.log()


def test_the_newest_messages_can_be_asked_for_by_name(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            for address in ("flow.seen.0", "flow._hidden.0", "mail.seen"):
                await q.publish(address, b"", id=address)
            for only, without, expected in (
                ("flow.*", "flow._*", ["flow.seen.0"]),
                ("*.seen*", "", ["mail.seen", "flow.seen.0"]),
                ("nothing", "", []),
            ):
                query = RecentQuery(limit=1000, only=only, without=without)
                found = await q.call("queue.recent", query, Messages)
                assert [m.address for m in found.messages] == expected

    asyncio.run(main())


def test_a_cancelled_application_gives_its_work_back_and_ends(broker: Broker) -> None:
    async def work(taken: asyncio.Event) -> None:
        async with broker.client() as q, asyncio.TaskGroup() as group:
            deliveries = q.consume("cancelled")
            await anext(deliveries)
            taken.set()
            group.create_task(q.publish("cancelled", b"", delay_s=3600))
            await anext(deliveries)

    async def main() -> None:
        async with broker.client() as q:
            await q.publish("cancelled", b"", id="cancelled")
            taken = asyncio.Event()
            application = asyncio.create_task(work(taken))
            async with asyncio.timeout(SOON_S):
                await taken.wait()
                application.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await application
            again = await first(q.consume("cancelled"))
            assert (again.id, again.attempt) == ("cancelled", 1)

    asyncio.run(main())

"""Calls and events through a real broker process."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from appliance.contracts.member import Ping, Pong
from appliance.contracts.traffic import Messages
from appliance.errors import DeadlinePassed, InvalidInput, NotFound
from appliance.queue import wire
from appliance.queue.calls import MAX_PENDING
from appliance.queue.client import RemoteError, Request
from appliance.queue.events import MAX_EVENT, MAX_KEPT_BYTES_OF_ONE, MAX_TOLD, MAX_TOLD_BYTES, MAX_TOPICS_OF_ONE
from appliance.queue.sessions import Parcel
from tests.unit.queue.desk import Desk
from tests.unit.queue.running import ALL, Broker, running
from tests.unit.queue.test_work import SOON_S, first


class Question(msgspec.Struct):
    number: int


class Reply(msgspec.Struct):
    number: int
    caller: str


async def double(request: Request) -> Reply:
    return Reply(request.decode(Question).number * 2, request.caller)


def test_a_call_is_answered_and_the_caller_is_named_by_the_broker(broker: Broker) -> None:
    broker.grant("asker", broker.clients["tester"][1])

    async def main() -> None:
        async with broker.client() as server, broker.client("asker") as q:
            await server.serve("math.double", double)
            assert await q.call("math.double", Question(21), Reply) == Reply(42, "asker")
            answers = await asyncio.gather(*(q.call("math.double", Question(n), Reply) for n in range(100)))
            assert [a.number for a in answers] == [2 * n for n in range(100)]

    asyncio.run(main())


def test_an_error_of_the_server_travels_with_code_sentence_and_hint(broker: Broker) -> None:
    async def refuse(_request: Request) -> None:
        raise NotFound("There is no such flow.", hint="List the flows.")

    async def crash(_request: Request) -> None:
        raise ZeroDivisionError("secret detail")

    async def main() -> None:
        async with broker.client() as q:
            await q.serve("err.refuse", refuse)
            await q.serve("err.crash", crash)
            await q.serve("err.double", double)
            with pytest.raises(RemoteError) as error:
                await q.call("err.refuse", None, Reply)
            problem = error.value.problem
            assert (problem.code, problem.message, problem.hint) == (
                "not-found",
                "There is no such flow.",
                "List the flows.",
            )
            assert problem.status == 404
            with pytest.raises(RemoteError) as error:
                await q.call("err.crash", None, Reply)
            assert error.value.problem.code == "internal-error"
            assert "secret" not in str(error.value)
            with pytest.raises(RemoteError) as error:
                await q.call("err.double", {"letter": "a"}, Reply)
            assert error.value.problem.code == "invalid-input"
            with pytest.raises(InvalidInput):
                await q.call("err.double", Question(1), str)

    asyncio.run(main())


def test_a_name_that_nobody_serves_is_said_at_once(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            with pytest.raises(RemoteError) as error:
                await q.call("no.body", None, Reply, deadline_s=SOON_S)
            assert error.value.problem.code == "call-not-served"
            assert "no.body" in error.value.problem.message

    asyncio.run(main())


def test_a_call_ends_at_its_deadline_and_so_does_its_handler(broker: Broker) -> None:
    cancelled = asyncio.Event()

    async def sleep(_request: Request) -> None:
        try:
            await asyncio.sleep(SOON_S)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def main() -> None:
        async with broker.client() as server, broker.client() as q:
            await server.serve("too.slow", sleep)
            with pytest.raises(DeadlinePassed):
                await q.call("too.slow", None, Reply, deadline_s=0.2)
            async with asyncio.timeout(SOON_S):
                await cancelled.wait()

    asyncio.run(main())


def test_a_server_that_goes_away_is_said(broker: Broker) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def hang(_request: Request) -> None:
            asked.set()
            await asyncio.sleep(SOON_S)

        async with broker.client() as q:
            async with broker.client() as server:
                await server.serve("going.away", hang)
                call = asyncio.create_task(q.call("going.away", None, Reply, deadline_s=SOON_S))
                await asked.wait()
            with pytest.raises(RemoteError) as error:
                await call
            assert error.value.problem.code == "call-server-lost"

    asyncio.run(main())


def test_the_broker_answers_ping_and_refuses_a_request_that_does_not_fit(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            assert (await q.call("queue.ping", Ping(sent_at=1.0), Pong)).name == "queue"
            with pytest.raises(RemoteError) as error:
                await q.call("queue.recent", {"limit": 0}, Messages)
            assert error.value.problem.code == "invalid-input"

    asyncio.run(main())


def test_an_event_is_kept_for_who_subscribes_later(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q:
            await q.emit("kept.a", b"1")
            await q.emit("kept.a", b"2")
            await q.emit("kept.b", b"3")
            events = q.events("kept.*")
            got = [await first(events), await first(events)]
            assert {(e.topic, e.body, e.retained, e.origin) for e in got} == {
                ("kept.a", b"2", True, "tester"), ("kept.b", b"3", True, "tester"),
            }  # fmt: skip
            await q.emit("kept.c", Question(5))
            event = await first(events)
            assert (event.topic, event.decode(Question), event.retained) == ("kept.c", Question(5), False)

    asyncio.run(main())


def test_events_and_servers_are_back_after_a_restart_of_the_broker() -> None:
    async def main(broker: Broker) -> None:
        async with broker.client() as emitter, broker.client() as q:
            await emitter.emit("state", b"last")
            await emitter.serve("math.double", double)
            events = q.events("state")
            assert (await first(events)).body == b"last"
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            assert (await first(events)).body == b"last"
            async with broker.client() as late:
                assert (await first(late.events("state"))).body == b"last"
            async with asyncio.timeout(SOON_S):
                while True:
                    try:
                        assert (await q.call("math.double", Question(2), Reply)).number == 4
                    except RemoteError:
                        continue
                    break

    with running() as broker:
        asyncio.run(main(broker))


def test_who_falls_behind_gets_the_newest_value_of_each_topic(broker: Broker) -> None:
    async def main() -> None:
        async with broker.client() as q, broker.client() as slow:
            events = slow.events("fast.*")
            await q.emit("fast.first", b"")
            assert (await first(events)).topic == "fast.first"
            for n in range(50):
                await q.emit("fast.a", str(n).encode())
            await q.emit("fast.end", b"")
            bodies = []
            while (event := await first(events)).topic != "fast.end":
                bodies.append(int(event.body))
            assert bodies == sorted(bodies)
            assert bodies[-1] == 49

    asyncio.run(main())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    for name in ("alice", "bob"):
        made.hello(name)
        made.heard(name)
    return made


def answers(desk: Desk, name: str) -> list[str]:
    """What the calls of `name` came to: the code of the fault, or the body."""
    heard = [(h, b) for h, b in desk.heard(name) if isinstance(h, wire.Reply)]
    return [bodies[0].decode() if header.fault is None else header.fault.code for header, bodies in heard]


def test_a_call_that_could_not_be_sent_to_its_server_goes_to_another_or_was_not_served(desk: Desk) -> None:
    for name in ("alice", "bob"):
        desk.ask(name, wire.Serve(1, "name"))
    desk.grant("carol", ALL)
    desk.heard("carol")
    for number in (1, 2):
        desk.engine.handle(b"carol", "carol", wire.to_broker(wire.Call(number, "name", 60.0), [b"?"]))
        (asked,) = desk.engine.run_turn()
        desk.engine.undelivered(asked, gone=True)
        assert desk.engine.next_time() == 0.0
        desk.turn()
        if number == 1:
            server = "bob" if asked.route == b"alice" else "alice"
            passed = next(h for h, b in desk.heard(server) if isinstance(h, wire.Asked) and b == [b"?"])
            desk.send(server, wire.Answer(passed.call), b"done")
            assert answers(desk, "carol") == ["done"]
    assert answers(desk, "carol") == ["call-not-served"]


def test_a_server_that_leaves_loses_its_own_calls_only(desk: Desk) -> None:
    for name in ("alice", "bob"):
        desk.ask(name, wire.Serve(1, "name"))
    desk.grant("carol", ALL)
    for number in range(10):
        desk.send("carol", wire.Call(number, "name", 60.0), b"")
    desk.heard("carol")
    theirs = [h.call for h, _ in desk.heard("bob") if isinstance(h, wire.Asked)]
    assert len(theirs) == 5
    desk.send("alice", wire.Bye())
    assert answers(desk, "carol") == ["call-server-lost"] * 5
    for call in theirs:
        desk.send("bob", wire.Answer(call), b"done")
    assert answers(desk, "carol") == ["done"] * 5


def test_calls_with_far_deadlines_leave_nothing_behind_once_they_are_answered(desk: Desk) -> None:
    desk.ask("bob", wire.Serve(1, "name"))
    for number in range(3 * MAX_PENDING):
        desk.send("alice", wire.Call(number, "name", 1e8), b"")
        (asked,) = [h for h, _ in desk.heard("bob") if isinstance(h, wire.Asked)]
        desk.send("bob", wire.Answer(asked.call), b"")
        desk.heard("alice")
    assert len(desk.engine._calls._by_time) <= MAX_PENDING + 1


def test_names_that_nobody_serves_any_more_leave_nothing_behind(desk: Desk) -> None:
    for number in range(3):
        desk.ask("bob", wire.Serve(1, f"name-{number}"))
        desk.send("bob", wire.Bye())
        desk.hello("bob")
    assert desk.engine._calls._servers == {}
    desk.send("alice", wire.Call(1, "name-0", 60.0), b"")
    assert answers(desk, "alice") == ["call-not-served"]


def test_topics_without_end_are_refused_to_who_makes_them_and_to_nobody_else(desk: Desk) -> None:
    def emit(name: str, topic: str, body: bytes = b"") -> int:
        return desk.ask(name, wire.Emit(1, topic), body).statuses[0]

    assert {emit("alice", f"t{number}") for number in range(MAX_TOPICS_OF_ONE)} == {wire.STORED}
    assert emit("alice", "one.more") == wire.REFUSED
    assert emit("alice", "t0", b"new") == wire.STORED
    assert emit("bob", "t1") == wire.STORED  # it is Bob's from now on
    assert emit("alice", "one.more") == wire.STORED
    assert emit("alice", "and.another") == wire.REFUSED
    large, room = b"x" * MAX_EVENT, MAX_KEPT_BYTES_OF_ONE // MAX_EVENT
    assert {emit("bob", f"large{number}", large) for number in range(room)} == {wire.STORED}
    assert emit("bob", "one.more", large) == wire.REFUSED
    assert emit("bob", "large0", b"small") == wire.STORED
    assert emit("bob", "one.more", large[:-100]) == wire.STORED


def test_an_event_that_is_too_large_is_refused_and_the_last_value_stays(desk: Desk) -> None:
    desk.ask("alice", wire.Emit(1, "state"), b"last")
    results = desk.ask("alice", wire.Emit(2, "state"), bytes(MAX_EVENT + 1))
    assert (results.statuses, results.troubles[0].fault.code) == ((wire.REFUSED,), "body-too-large")
    desk.send("bob", wire.Subscribe(1, 1, "state"))
    assert [bodies for header, bodies in desk.inboxes["bob"] if isinstance(header, wire.Happened)] == [[b"last"]]


def load(desk: Desk, name: str, message: wire.Frames) -> list[Parcel]:
    """Let `name` send a message again and again until the broker has enough for a turn, and return what that sends."""
    for _ in range(2 * MAX_TOLD):
        if desk.engine.laden:
            break
        desk.engine.handle(name.encode(), name, message)
    return [parcel for parcel in desk.engine.run_turn() if parcel.latest is not None]


@pytest.mark.parametrize("size", [0, MAX_TOLD_BYTES // 16])
def test_what_a_few_messages_have_the_broker_tell_ends_its_turn(desk: Desk, size: int) -> None:
    topics = 4 if size else 1000
    for number in range(topics):
        desk.send("alice", wire.Emit(1, f"t{number}"), b"x" * size)
    subscribe = wire.to_broker(wire.Subscribe(1, 1, "*"))
    emit = wire.to_broker(wire.Emit(1, "t0"), [b"x" * size])
    for name, message in (("bob", subscribe), ("bob", subscribe), ("alice", emit)):
        told = load(desk, name, message)
        assert 0 < len(told) < MAX_TOLD + topics
        assert sum(parcel.size for parcel in told) < 2 * MAX_TOLD_BYTES

"""The journey of a message through real processes: webhook, broker, servers, target."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
import msgspec
from aiohttp import web

from appliance.config import QueueLimit
from appliance.contracts.flow import (
    DeleteFlow,
    Flow,
    FlowChanged,
    HttpDelivery,
    Map,
    PutFlow,
    Retry,
    Set,
    Step,
    Webhook,
)
from appliance.contracts.member import Ping, Pong
from appliance.contracts.notice import Notice
from appliance.contracts.traffic import QueueStats
from appliance.errors import Problem, Unavailable
from appliance.queue.client import QueueClient, RemoteError
from tests.cluster import Cluster, served, until
from tests.ports import free_port

QUICK = Retry(attempts=50, first_s=0.05, max_s=0.2)
ONE, TWO = "arsrv-1", "arsrv-2"


class Received(NamedTuple):
    """A request that reached a target."""

    key: str
    content_type: str
    body: bytes


class Target:
    """An outside system; `answer` is asked for the status of each request, which is recorded before."""

    def __init__(self, answer: Callable[[Received], Awaitable[int]] | None = None, *, port: int = 0) -> None:
        self.port = port or free_port()
        self.received: list[Received] = []
        self.arrived = asyncio.Event()
        self.leaving = asyncio.Event()
        self._answer = answer

    @property
    def url(self) -> str:
        """Where it takes messages."""
        return f"http://127.0.0.1:{self.port}/in"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/in", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leaving.set()
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        received = Received(request.headers["Idempotency-Key"], request.content_type, await request.read())
        self.received.append(received)
        self.arrived.set()
        return web.Response(status=200 if self._answer is None else await self._answer(received))


class Bench:
    """A running cluster with a client that may do everything."""

    def __init__(self, cluster: Cluster, queue: QueueClient, http: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.queue = queue
        self.http = http

    async def put(self, url: str, *steps: Step, name: str = "orders", retry: Retry = QUICK, **trigger: int) -> None:
        """Make a flow known to all servers."""
        flow = Flow(
            name=name, deliver=HttpDelivery(url=url, retry=retry, timeout_s=60), steps=steps, trigger=Webhook(**trigger)
        )
        changed = await self.queue.call("arclst.flow.put", PutFlow(flow=flow, who="test"), FlowChanged)
        for server in {ONE, TWO} & self.cluster.running:
            await self.knows(server, changed.revision)

    async def knows(self, name: str, revision: int) -> None:
        """Return when a server runs the flows of that revision."""

        async def asked() -> bool | None:
            try:
                pong = await self.queue.call(f"{name}.ping", Ping(sent_at=0.0), Pong)
            except (RemoteError, Unavailable):
                return None
            return True if pong.flows_revision >= revision else None

        await until(asked)

    async def post(self, server: str, body: bytes, flow: str = "orders", **headers: str) -> str:
        """Hand a message in; return its id."""
        headers.setdefault("Content-Type", "application/json")
        async with self.http.post(self.cluster.hook(server, flow), data=body, headers=headers) as response:
            assert response.status == 202, await response.text()
            return str((await response.json())["id"])


def play(
    tmp_path: Path, scenario: Callable[[Bench], Awaitable[None]], *servers: str, limit: QueueLimit | None = None
) -> None:
    """Run a scenario on a cluster with these servers."""

    async def run() -> None:
        async with asyncio.timeout(120):
            with Cluster(tmp_path, limits=() if limit is None else (limit,)) as cluster:
                await cluster.start("queue", "arclst", *servers)
                async with cluster.client() as queue, aiohttp.ClientSession() as http:
                    await served(queue, "arclst.flow.put")
                    await scenario(Bench(cluster, queue, http))

    asyncio.run(run())


def test_a_message_goes_through_the_steps_and_arrives_under_its_id(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async with Target() as target:
            await bench.put(target.url, Set(path="seen.by", value="box"), Map(to="{order: id, by: seen.by}"))
            sent = {
                await bench.post(server, json.dumps({"id": n}).encode()): n for server in (ONE, TWO) for n in range(20)
            }
            await until(lambda: _count(target, 40))
            assert sorted(item.key for item in target.received) == sorted(sent)
            for item in target.received:
                assert json.loads(item.body) == {"order": sent[item.key], "by": "box"}
                assert item.content_type == "application/json"

    play(tmp_path, scenario, ONE, TWO)


def test_with_the_target_down_it_is_retried_and_delivered_once_when_it_is_back(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        port = free_port()
        await bench.put(f"http://127.0.0.1:{port}/in")
        ids = [await bench.post(ONE, b"one"), await bench.post(TWO, b"two")]
        await until(lambda: _said(bench, "Attempt 2 of"))
        async with Target(port=port) as target:
            await until(lambda: _count(target, 2))
            await _settled(bench)
            assert sorted(item.key for item in target.received) == sorted(ids)

    play(tmp_path, scenario, ONE, TWO)


def test_a_server_killed_in_mid_message_leaves_it_to_the_other_under_the_same_key(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async def hang_first(_received: Received) -> int:
            if len(target.received) == 1:
                await asyncio.Event().wait()
            return 200

        async with Target(hang_first) as target:
            await bench.put(target.url)
            sent = await bench.post(ONE, b"precious")
            await target.arrived.wait()
            await bench.cluster.start(TWO)
            bench.cluster.kill(ONE)
            await until(lambda: _count(target, 2))
            await _settled(bench)
            assert [(item.key, item.body) for item in target.received] == [(sent, b"precious")] * 2

    play(tmp_path, scenario, ONE)


def test_a_server_that_is_stopped_finishes_what_it_has_in_hand(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        released = asyncio.Event()

        async def wait(_received: Received) -> int:
            await released.wait()
            return 200

        async def closed() -> bool | None:
            try:
                async with bench.http.get(f"http://127.0.0.1:{bench.cluster.ports[ONE]}/health"):
                    return None
            except aiohttp.ClientConnectorError:
                return True

        async with Target(wait) as target:
            await bench.put(target.url)
            await bench.post(ONE, b"in hand")
            await target.arrived.wait()
            async with asyncio.TaskGroup() as group:
                group.create_task(bench.cluster.stop(ONE))
                await until(closed)
                released.set()
            await bench.cluster.start(TWO)
            await _settled(bench)
            assert len(target.received) == 1

    play(tmp_path, scenario, ONE)


def test_with_the_broker_killed_after_the_202_the_message_is_delivered(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        port = free_port()
        await bench.put(f"http://127.0.0.1:{port}/in", Set(path="a", value=1))
        sent = {await bench.post(server, b"{}") for server in (ONE, TWO) for _ in range(5)}
        bench.cluster.kill("queue")
        async with Target(port=port) as target:
            async with bench.http.get(f"http://127.0.0.1:{bench.cluster.ports[ONE]}/health") as response:
                assert response.status in (200, 503)
            await bench.cluster.start("queue")
            await until(lambda: _count(target, 10))
            await _settled(bench)
            assert {item.key for item in target.received} == sent
            assert {await bench.post(server, b"{}") for server in (ONE, TWO)}.isdisjoint(sent)

    play(tmp_path, scenario, ONE, TWO)


def test_a_message_that_cannot_be_delivered_ends_as_a_dead_letter_and_a_notice(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.put(f"http://127.0.0.1:{free_port()}/in", retry=Retry(attempts=2, first_s=0.05, max_s=0.1))
        sent = await bench.post(ONE, b"lost")
        async for delivery in bench.queue.consume("notice.mail"):
            notice = delivery.decode(Notice)
            await delivery.done()
            break
        assert sent in notice.body
        assert "Attempt 2 of 2" in notice.body

    play(tmp_path, scenario, ONE)


def test_a_message_that_a_step_cannot_process_is_a_dead_letter_with_the_reason(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async with Target() as target:
            await bench.put(target.url, Set(path="a", value=1))
            await bench.post(ONE, b"no json")
            async for delivery in bench.queue.consume("notice.mail"):
                notice = delivery.decode(Notice)
                await delivery.done()
                break
            assert "not JSON" in notice.body
            assert target.received == []

    play(tmp_path, scenario, ONE)


def test_a_message_that_meets_a_fault_of_ours_stops_no_other(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async with Target() as target:
            await bench.put(target.url)
            await bench.queue.publish("flow.orders.nonsense", b"")
            async for delivery in bench.queue.consume("notice.mail"):
                notice = delivery.decode(Notice)
                await delivery.done()
                break
            assert "failed unexpectedly" in notice.body
            sent = await bench.post(ONE, b"good")
            await until(lambda: _arrived(target, sent))

    play(tmp_path, scenario, ONE)


def test_a_client_that_sends_again_with_its_key_has_sent_one_message(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async with Target() as target:
            await bench.put(target.url)
            ids = {await bench.post(server, b"once", **{"Idempotency-Key": "order-7"}) for server in (ONE, TWO, ONE)}
            last = await bench.post(TWO, b"last")
            await until(lambda: _arrived(target, last))
            await _settled(bench)
            assert sorted(item.key for item in target.received) == sorted([*ids, last])

    play(tmp_path, scenario, ONE, TWO)


def test_a_dead_target_does_not_hold_up_another_flow(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async def hang(_received: Received) -> int:
            await dead.leaving.wait()
            return 200

        async with Target(hang) as dead, Target() as well:
            await bench.put(dead.url)
            for _ in range(50):
                await bench.post(ONE, b"stuck")
            await bench.put(well.url, name="others")
            sent = await bench.post(ONE, b"on its way", "others")
            await until(lambda: _arrived(well, sent))

    play(tmp_path, scenario, ONE)


REFUSED = [
    ("/hooks/nothing", 1, 404, "unknown-flow"),
    ("/hooks/_selftest", 1, 404, "unknown-flow"),
    ("/hooks/orders", 101, 413, "message-too-large"),
    ("/elsewhere", 1, 404, "http-error"),
]


def test_what_is_refused_is_refused_with_a_problem(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async def in_parts(size: int) -> AsyncIterator[bytes]:
            yield b"x" * size

        await bench.put("http://127.0.0.1:9/", max_bytes=100)
        for path, size, status, code in REFUSED:
            for body in (b"x" * size, in_parts(size)):
                async with bench.http.post(f"http://127.0.0.1:{bench.cluster.ports[ONE]}{path}", data=body) as response:
                    problem = msgspec.json.decode(await response.read(), type=Problem)
                    assert (path, response.status, problem.code) == (path, status, code)
                    assert response.content_type == "application/problem+json"
        assert "Traceback" not in bench.cluster.log(ONE)

    play(tmp_path, scenario, ONE)


def test_a_refusal_before_the_body_has_come_ends_the_connection(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.put("http://127.0.0.1:9/")
        for body, closes in ((b"", True), (b"four", False)):
            reader, writer = await asyncio.open_connection("127.0.0.1", bench.cluster.ports[ONE])
            writer.write(b"POST /hooks/nothing HTTP/1.1\r\nHost: box\r\nContent-Length: 4\r\n\r\n" + body)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 404")
            assert (b"connection: close" in head) == closes
            writer.close()

    play(tmp_path, scenario, ONE)


def test_a_message_that_is_cut_short_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async with Target() as target:
            await bench.put(target.url)
            for head in (b"Content-Length: 100", b"Transfer-Encoding: chunked"):
                reader, writer = await asyncio.open_connection("127.0.0.1", bench.cluster.ports[ONE])
                writer.write(b"POST /hooks/orders HTTP/1.1\r\nHost: box\r\n" + head + b"\r\n\r\n" + b"5\r\nhalf ")
                writer.write_eof()
                answer = await reader.read()
                assert b"202" not in answer.partition(b"\r\n")[0]
                writer.close()
            last = await bench.post(ONE, b"whole")
            await until(lambda: _arrived(target, last))
            await _settled(bench)
            assert [item.body for item in target.received] == [b"whole"]

    play(tmp_path, scenario, ONE)


def test_what_is_under_way_in_a_flow_that_is_deleted_becomes_a_dead_letter(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.put(f"http://127.0.0.1:{free_port()}/in")
        sent = await bench.post(ONE, b"too late")
        await bench.queue.call("arclst.flow.delete", DeleteFlow(name="orders", who="test"), FlowChanged)
        async for delivery in bench.queue.consume("notice.mail"):
            notice = delivery.decode(Notice)
            await delivery.done()
            break
        assert sent in notice.body
        assert "does not exist any more" in notice.body

    play(tmp_path, scenario, ONE)


def test_a_message_that_the_queue_has_no_room_for_is_refused_with_503_and_when_to_come_again(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async def hang(_received: Received) -> int:
            await target.leaving.wait()
            return 200

        async with Target(hang) as target:
            await bench.put(target.url)
            for _ in range(2):
                await bench.post(ONE, b"fits")
            async with bench.http.post(bench.cluster.hook(ONE, "orders"), data=b"too much") as response:
                problem = msgspec.json.decode(await response.read(), type=Problem)
                assert (response.status, problem.code) == (503, "queue-busy")
                assert problem.hint
                assert int(response.headers["Retry-After"]) >= 1

    play(tmp_path, scenario, ONE, limit=QueueLimit(pattern="flow.*", max_depth=2))


def test_a_message_that_its_address_can_never_hold_is_refused_with_413(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.put("http://127.0.0.1:9/")
        async with bench.http.post(bench.cluster.hook(ONE, "orders"), data=b"x" * 1000) as response:
            problem = msgspec.json.decode(await response.read(), type=Problem)
            assert (response.status, problem.code) == (413, "body-too-large")
            assert problem.hint
            assert "Retry-After" not in response.headers
        await bench.post(ONE, b"fits")

    play(tmp_path, scenario, ONE, limit=QueueLimit(pattern="flow.orders.0", max_bytes=1000))


def test_a_message_that_a_later_stage_can_never_hold_is_a_dead_letter_there(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.put("http://127.0.0.1:9/", Set(path="grown", value="x" * 1000))
        sent = await bench.post(ONE, b"{}")
        async for delivery in bench.queue.consume("notice.mail"):
            notice = delivery.decode(Notice)
            await delivery.done()
            break
        assert sent in notice.body
        assert "Attempts: 1 of" in notice.body
        assert "flow.orders.1 holds at most 1000" in notice.body

    play(tmp_path, scenario, ONE, limit=QueueLimit(pattern="flow.orders.1", max_bytes=1000))


def test_a_stage_that_takes_no_more_for_now_costs_no_message_an_attempt(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        async with Target() as target:
            await bench.put(target.url, Set(path="a", value=1))
            sent = {await bench.post(ONE, json.dumps({"id": n}).encode()) for n in range(24)}
            await until(lambda: _count(target, len(sent)))  # turned away more often than there are attempts
            assert {item.key for item in target.received} == sent
            stats = await bench.queue.call("queue.stats", None, QueueStats)
            assert sum(depth.dead_total for depth in stats.depths) == 0

    play(tmp_path, scenario, ONE, limit=QueueLimit(pattern="flow.orders.1", rate=4.0))


def test_without_the_queue_a_message_is_refused_with_503_and_when_to_come_again(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.put("http://127.0.0.1:9/")
        base = f"http://127.0.0.1:{bench.cluster.ports[ONE]}"
        async with bench.http.get(f"{base}/health") as response:
            assert response.status == 200
        bench.cluster.kill("queue")
        async with bench.http.post(f"{base}/hooks/orders", data=b"x") as response:
            problem = msgspec.json.decode(await response.read(), type=Problem)
            assert response.status == 503
            assert problem.hint
            assert int(response.headers["Retry-After"]) >= 1

        async def ill() -> bool | None:
            async with bench.http.get(f"{base}/health") as response:
                return True if response.status == 503 else None

        await until(ill)

    play(tmp_path, scenario, ONE)


async def _count(target: Target, wanted: int) -> bool | None:
    return True if len(target.received) >= wanted else None


async def _arrived(target: Target, key: str) -> bool | None:
    return True if any(item.key == key for item in target.received) else None


async def _said(bench: Bench, text: str) -> bool | None:
    return True if text in bench.cluster.logs() else None


async def _settled(bench: Bench) -> None:
    """Return when no message of the flow waits or is in hand: what has not been delivered by then never will be."""

    async def empty() -> bool | None:
        stats = await bench.queue.call("queue.stats", None, QueueStats)
        return None if any(depth.ready or depth.leased for depth in stats.depths if "orders" in depth.address) else True

    await until(empty)

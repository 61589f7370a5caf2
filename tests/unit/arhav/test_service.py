"""ARHAV watching real servers, and the journey through a stand-in for the reverse proxy."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from appliance.contracts.flow import Flow, FlowChanged, HttpDelivery, PutFlow
from appliance.contracts.order import Health, Order
from appliance.queue.client import QueueClient, RemoteError
from tests.cluster import Cluster, served
from tests.ports import free_port

ONE, TWO = "arsrv-1", "arsrv-2"
INSIDE = "10.156.16.4"


def play(tmp_path: Path, scenario: Callable[[Cluster, QueueClient], Awaitable[None]], *, client: str = INSIDE) -> None:
    """Run a scenario on two servers behind a proxy that says `client` is where requests come from."""

    async def run() -> None:
        port = free_port()
        async with asyncio.timeout(90):
            with Cluster(tmp_path, selftest_entry=f"http://127.0.0.1:{port}/hooks/_selftest") as cluster:
                async with aiohttp.ClientSession() as http:
                    proxy = await start_proxy(port, cluster, http, client)
                    try:
                        await cluster.start("queue", "arclst", "arhav", ONE, TWO)
                        async with cluster.client() as queue:
                            await scenario(cluster, queue)
                    finally:
                        await proxy.cleanup()

    asyncio.run(run())


async def start_proxy(port: int, cluster: Cluster, http: aiohttp.ClientSession, client: str) -> web.AppRunner:
    """Start what ARDPX is on the box, as far as the journey needs it."""
    turns = 0

    async def hand_on(request: web.Request) -> web.Response:
        nonlocal turns
        turns += 1
        url = f"http://127.0.0.1:{cluster.ports[(ONE, TWO)[turns % 2]]}{request.path}"
        headers = {
            "X-Forwarded-For": client,
            "X-Alpha-Ren-Request": f"request-{turns}",
            "Content-Type": request.content_type,
        }
        try:
            async with http.post(url, data=await request.read(), headers=headers) as answer:
                return web.Response(status=answer.status, body=await answer.read())
        except aiohttp.ClientError:
            return web.Response(status=503)

    app = web.Application()
    app.router.add_post("/hooks/{flow}", hand_on)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


async def order_with(queue: QueueClient, **wanted: str) -> Order:
    """Return the first order in which the servers have these presences."""
    async for event in queue.events("order"):
        order = event.decode(Order)
        if {rank.name.replace("-", "_"): rank.presence for rank in order.ranks} == wanted:
            return order
    raise AssertionError


async def health_that(queue: QueueClient, right: Callable[[Health], bool]) -> Health:
    async for event in queue.events("health"):
        health = event.decode(Health)
        if right(health):
            return health
    raise AssertionError


def test_servers_that_answer_are_up_and_one_that_is_killed_is_down_until_it_is_back(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, queue: QueueClient) -> None:
        await order_with(queue, arsrv_1="up", arsrv_2="up")
        cluster.kill(ONE)
        order = await order_with(queue, arsrv_1="down", arsrv_2="up")
        assert [rank.name for rank in order.ranks] == [TWO, ONE]
        await cluster.start(ONE)
        order = await order_with(queue, arsrv_1="up", arsrv_2="up")
        assert all(rank.rtt_s > 0 and rank.cost >= rank.rtt_s for rank in order.ranks)

    play(tmp_path, scenario)


def test_a_restart_of_the_broker_is_held_against_nobody_for_ever(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, queue: QueueClient) -> None:
        before = await order_with(queue, arsrv_1="up", arsrv_2="up")
        cluster.kill("queue")
        await cluster.start("queue")
        while (await order_with(queue, arsrv_1="up", arsrv_2="up")).at <= before.at:
            continue

    play(tmp_path, scenario)


def test_the_journey_through_a_built_in_flow_makes_the_box_healthy(tmp_path: Path) -> None:
    async def scenario(_cluster: Cluster, queue: QueueClient) -> None:
        health = await health_that(queue, lambda health: health.ok)
        assert health.journey_s is not None
        assert health.journey_s > 0
        assert health.detail == ""

    play(tmp_path, scenario)


def test_from_the_outside_the_built_in_flow_does_not_exist(tmp_path: Path) -> None:
    async def scenario(_cluster: Cluster, queue: QueueClient) -> None:
        health = await health_that(queue, lambda health: "404" in health.detail)
        assert not health.ok

    play(tmp_path, scenario, client="192.0.2.7")


def test_without_a_server_the_box_is_not_healthy_and_says_why(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, queue: QueueClient) -> None:
        await health_that(queue, lambda health: health.ok)
        cluster.kill(ONE)
        cluster.kill(TWO)
        health = await health_that(queue, lambda health: not health.ok)
        assert "503" in health.detail
        await cluster.start(ONE, TWO)
        await health_that(queue, lambda again: again.ok and again.at > health.at)

    play(tmp_path, scenario)


def test_nobody_else_puts_the_built_in_flow(tmp_path: Path) -> None:
    async def scenario(_cluster: Cluster, queue: QueueClient) -> None:
        await served(queue, "arclst.flow.put")
        flow = Flow(name="_selftest", deliver=HttpDelivery(url="http://192.0.2.1/"))
        with pytest.raises(RemoteError) as refusal:
            await queue.call("arclst.flow.put", PutFlow(flow=flow, who="somebody"), FlowChanged)
        assert refusal.value.problem.code == "refused"

    play(tmp_path, scenario)

"""ARCLST as the others on the queue see it: a real process behind a real broker."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from appliance.contracts.flow import DeleteFlow, Flow, FlowChanged, Flows, HttpDelivery, Map, PutFlow
from appliance.contracts.member import Joined, Member, Members
from appliance.contracts.user import Done, Login, PairingAttempt, Session, SessionToken, Setup, SetupState
from appliance.errors import Refused
from appliance.queue.client import QueueClient, RemoteError, Request
from tests.cluster import Cluster, served, until

ORDERS = Flow(name="orders", deliver=HttpDelivery(url="https://erp.example.org/"))


def play(tmp_path: Path, scenario: Callable[[Cluster, QueueClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60):
            with Cluster(tmp_path) as cluster:
                await cluster.start("queue", "arclst")
                async with cluster.client() as queue:
                    await served(queue, "arclst.flow.put")
                    await served(queue, "arclst.join")
                    await scenario(cluster, queue)

    asyncio.run(run())


async def put(queue: QueueClient, flow: Flow) -> int:
    return (await queue.call("arclst.flow.put", PutFlow(flow=flow, who="admin"), FlowChanged)).revision


async def flows(queue: QueueClient, revision: int) -> Flows:
    """Return the event `flows` of this revision or a later one."""
    async for event in queue.events("flows"):
        heard = event.decode(Flows)
        if heard.revision >= revision:
            return heard
    raise AssertionError


def test_a_flow_that_was_put_is_told_to_everybody_and_one_deleted_is_gone(tmp_path: Path) -> None:
    async def scenario(_cluster: Cluster, queue: QueueClient) -> None:
        assert (await flows(queue, 0)).flows == ()
        assert (await flows(queue, await put(queue, ORDERS))).flows == (ORDERS,)
        deleted = await queue.call("arclst.flow.delete", DeleteFlow(name="orders", who="admin"), FlowChanged)
        assert (await flows(queue, deleted.revision)).flows == ()

    play(tmp_path, scenario)


REFUSED = {
    "an expression that does not compile": (
        Flow(name="orders", deliver=ORDERS.deliver, steps=(Map(to="["),)),
        "invalid-flow",
    ),
    "an unknown scheme": (Flow(name="orders", deliver=HttpDelivery(url="gopher://x/")), "invalid-flow"),
    "a port the firewall is closed for": (
        Flow(name="orders", deliver=HttpDelivery(url="http://x:65000/")),
        "invalid-flow",
    ),
    "a bad name": (Flow(name="BAD NAME", deliver=ORDERS.deliver), "invalid-input"),
    "a name of the appliance": (Flow(name="_mine", deliver=ORDERS.deliver), "refused"),
    "the built-in flow": (Flow(name="_selftest", deliver=ORDERS.deliver), "refused"),
}


def test_a_flow_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    async def scenario(_cluster: Cluster, queue: QueueClient) -> None:
        before = await put(queue, ORDERS)
        for what, (flow, code) in REFUSED.items():
            with pytest.raises(RemoteError) as refusal:
                await put(queue, flow)
            problem = refusal.value.problem
            assert (what, problem.code) == (what, code)
            assert problem.message
            assert problem.hint
        after = await queue.call("arclst.flow.list", None, Flows)
        assert (after.revision, after.flows) == (before, (ORDERS,))

    play(tmp_path, scenario)


def test_a_server_joins_under_its_own_name_only(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, queue: QueueClient) -> None:
        member = Member(name="arsrv-1", component="arsrv", v4="10.0.0.1", v6="fd00::1", port=7180)
        with pytest.raises(RemoteError) as refusal:
            await queue.call("arclst.join", member, Joined)
        assert refusal.value.problem.code == Refused.code
        async with cluster.client("arsrv-1") as server:
            joined = await server.call("arclst.join", member, Joined)
            assert await server.call("arclst.join", member, Joined) == joined, "joining again changes nothing"
        async for event in queue.events("members"):
            if event.decode(Members).revision >= joined.revision:
                assert event.decode(Members).members == (member,)
                break

    play(tmp_path, scenario)


def test_after_a_restart_of_the_broker_the_state_is_told_again(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, queue: QueueClient) -> None:
        revision = await put(queue, ORDERS)
        cluster.kill("queue")
        await cluster.start("queue")
        async with cluster.client() as newcomer:
            assert (await flows(newcomer, revision)).flows == (ORDERS,)

    play(tmp_path, scenario)


def test_after_being_killed_it_knows_everything_it_had_acknowledged(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, queue: QueueClient) -> None:
        revision = await put(queue, ORDERS)
        cluster.kill("arclst")
        await cluster.start("arclst")

        async def again() -> Flows | None:
            try:
                return await queue.call("arclst.flow.list", None, Flows)
            except RemoteError:
                return None

        known = await until(again)
        assert (known.revision, known.flows) == (revision, (ORDERS,))

    play(tmp_path, scenario)


def test_the_first_password_is_set_with_the_supervisors_consent(tmp_path: Path) -> None:
    async def scenario(_cluster: Cluster, queue: QueueClient) -> None:
        async def pair(request: Request) -> Done:
            if request.decode(PairingAttempt).code != "AAAA-BBBB":
                raise Refused("This is not the code on the screen.", hint="Read it again.")
            return Done()

        await queue.serve("supervisor.pair", pair)
        assert not (await queue.call("arclst.setup.state", None, SetupState)).done
        with pytest.raises(RemoteError, match="not the code"):
            await queue.call("arclst.setup", Setup(code="wrong", password="correct horse"), Done)
        await queue.call("arclst.setup", Setup(code="AAAA-BBBB", password="correct horse"), Done)
        assert (await queue.call("arclst.setup.state", None, SetupState)).done
        token = await queue.call("arclst.login", Login(user="admin", password="correct horse"), SessionToken)
        assert (await queue.call("arclst.session", token, Session)).user == "admin"
        await queue.call("arclst.logout", token, Done)
        with pytest.raises(RemoteError) as refusal:
            await queue.call("arclst.session", token, Session)
        assert (refusal.value.problem.code, refusal.value.problem.status) == ("no-session", 401)

    play(tmp_path, scenario)

"""The supervisor's line to the queue: what root asks at the control socket reaches the broker as the supervisor."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
import pytest

from appliance.contracts.letters import Browse, Changed, Purge
from appliance.contracts.machine import Confirmation, MachineStatus, Repair
from appliance.contracts.traffic import Messages, QueueStats
from appliance.contracts.user import Done
from appliance.errors import Unavailable
from appliance.queue.client import QueueClient, RemoteError
from appliance.supervisor.desired import SUPERVISOR_RIGHTS
from appliance.supervisor.hotline import Hotline
from appliance.supervisor.trial import NothingPending
from tests.unit.queue.running import Broker, running

SOON_S = 20.0


async def nobody_asks(_confirmation: Confirmation) -> None:
    """Keep no change, and undo none."""


def hotline(
    confirm: Callable[[Confirmation], Awaitable[None]] = nobody_asks,
    revert: Callable[[Confirmation], Awaitable[None]] = nobody_asks,
) -> Hotline:
    status = MachineStatus(at=0.0, name="box", version="1", profile="qemu", ready=True, units=())
    return Hotline(lambda: status, lambda _attempt: None, lambda _health: None, confirm, revert)


async def connected(line: Hotline) -> None:
    """Return once the hotline can ask."""
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                await line.relay("queue.stats", b"{}")
                return
            except Unavailable:
                await asyncio.sleep(0.02)


async def served(q: QueueClient, name: str, asked: Confirmation) -> Done:
    """Call and return the answer; the hotline serves one call after the other once it is connected."""
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                return await q.call(name, asked, Done, deadline_s=SOON_S)
            except RemoteError as error:
                if error.problem.code != "call-not-served":
                    raise
                await asyncio.sleep(0.02)


def test_calls_of_an_operator_are_relayed_with_the_supervisors_own_rights() -> None:
    async def main(broker: Broker) -> None:
        line = hotline()
        with pytest.raises(Unavailable):
            await line.relay("queue.stats", b"{}")
        task = asyncio.create_task(line.run(broker.connection("supervisor")))
        await connected(line)
        async with broker.client() as q:
            await q.publish("a", b"{}", id="1")
            delivery = await anext(q.consume("a"))
            await delivery.reject("no")
        found = cast(Messages, await line.relay("queue.browse", msgspec.json.encode(Browse(address="a"))))
        assert [m.id for m in found.messages] == ["1"]
        assert await line.relay("queue.browse", msgspec.json.encode(Browse(address="*/*/*"))) == Messages(messages=())
        assert await line.relay("queue.purge", msgspec.json.encode(Purge(address="a"))) == Changed(
            count=1, last=found.messages[0].seq
        )
        stats = cast(QueueStats, await line.relay("queue.stats", b"{}"))
        assert "supervisor" in stats.clients
        with pytest.raises(msgspec.DecodeError):
            await line.relay("queue.purge", b'{"colour": "red"}')
        with pytest.raises(RemoteError, match="Either numbers"):
            await line.relay("queue.purge", b"{}")
        task.cancel()
        await asyncio.wait([task])

    with running() as broker:
        broker.grant("supervisor", SUPERVISOR_RIGHTS)
        asyncio.run(main(broker))


@pytest.mark.parametrize("act", ["confirm", "revert"])
def test_a_change_is_confirmed_or_undone_through_the_queue_by_whoever_may_and_a_refusal_comes_back(act: str) -> None:
    async def main(broker: Broker) -> None:
        heard: list[Confirmation] = []

        async def hear(confirmation: Confirmation) -> None:
            if heard:
                raise NothingPending("There is none.")
            heard.append(confirmation)

        line = hotline(**{act: hear})
        task = asyncio.create_task(line.run(broker.connection("supervisor")))
        await connected(line)
        async with broker.client() as q:
            asked = Confirmation(digest="d", who="admin")
            assert await served(q, f"supervisor.{act}", asked) == Done()
            assert heard == [asked]
            with pytest.raises(RemoteError) as refused:
                await q.call(f"supervisor.{act}", asked, Done, deadline_s=SOON_S)
            assert refused.value.problem.code == "nothing-pending"
        task.cancel()
        await asyncio.wait([task])

    with running() as broker:
        broker.grant("supervisor", SUPERVISOR_RIGHTS)
        asyncio.run(main(broker))


def test_a_repair_is_told_once_there_is_somebody_to_tell() -> None:
    repair = Repair(at=1.0, cause="a link went in the host", steps=("make veth srv-1/cluster",), took_s=0.05)

    async def main(broker: Broker) -> None:
        line = hotline()
        line.repaired(repair)
        task = asyncio.create_task(line.run(broker.connection("supervisor")))
        async with asyncio.timeout(SOON_S), broker.client() as q:
            event = await anext(q.events("machine.repaired"))
        assert event.decode(Repair) == repair
        task.cancel()
        await asyncio.wait([task])

    with running() as broker:
        broker.grant("supervisor", SUPERVISOR_RIGHTS)
        asyncio.run(main(broker))

"""A broker or a gate that may open no more files: those whom it knows are served, and it ends when it is told to."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator

import psutil
import pytest
import zmq

from appliance.contracts.letters import BackedUp, Checked, Tend
from appliance.queue.auth import join_curve
from appliance.queue.client import RemoteError
from tests.unit.queue.gates import Gate, guarded
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import ALL, STOPPED_WITHIN_S, Broker, running
from tests.unit.queue.test_robustness import DEADLINE_S, serves
from tests.unit.queue.test_security import wait_until

FILES = 64
CROWD = 100
"""More than there is room for."""
FEW_FILES = ("prlimit", f"--nofile={FILES}", "--core=0", sys.executable)


@pytest.fixture
def narrow() -> Iterator[Broker]:
    """A broker that may have FILES open."""
    with running() as broker:
        broker.grant("mallory", ALL)
        broker.stop()
        broker.start(python=FEW_FILES)
        yield broker


@contextlib.contextmanager
def crowd(broker: Broker, endpoint: str = "") -> Iterator[None]:
    """More connections than it can have, for as long as the context lasts."""
    connection = broker.connection()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, contextlib.ExitStack() as sockets:
        for _ in range(CROWD):
            each = sockets.enter_context(context.socket(zmq.DEALER))
            each.linger = 0
            join_curve(each, connection.keys, connection.server_key)
            each.connect(endpoint or connection.endpoint)
        yield


def is_full(process: Broker | Gate) -> bool:
    assert process.process is not None
    return int(psutil.Process(process.process.pid).num_fds()) >= FILES


def test_with_no_file_left_to_open_a_broker_serves_and_stops(narrow: Broker) -> None:
    async def main() -> None:
        async with narrow.client() as q:
            await serves(q, "before")
            with Peer(narrow.connection("mallory")), crowd(narrow):
                wait_until(lambda: is_full(narrow))
                await serves(q, "full")
                for call, kind in (("queue.check", Checked), ("queue.backup", BackedUp)):
                    with pytest.raises(RemoteError, match="could not be opened once more"):
                        await q.call(call, Tend(who="eve"), kind, deadline_s=DEADLINE_S)
                narrow.revoke("mallory")
                wait_until(lambda: "the key list stays as it was" in narrow.log())
                await serves(q, "still")
            wait_until(lambda: "the key of mallory was revoked" in narrow.log())
            assert narrow.log().count("the key list stays as it was") == 1
            assert (await q.call("queue.check", Tend(who="eve"), Checked, deadline_s=DEADLINE_S)).problems == ()

    asyncio.run(main())
    with crowd(narrow):
        wait_until(lambda: is_full(narrow))
        assert narrow.stop() == 0


def test_with_no_file_left_for_its_unix_socket_a_broker_starts_anew_with_all_that_it_had(narrow: Broker) -> None:
    """libzmq aborts the process. Only the supervisor and the gate come in by it."""

    async def main() -> None:
        async with narrow.client() as q:
            await q.publish("kept", b"", id="1")
            with crowd(narrow, narrow.ipc):
                assert narrow.process is not None
                assert await asyncio.to_thread(narrow.process.wait, STOPPED_WITHIN_S) == -signal.SIGABRT
            await asyncio.to_thread(narrow.start)
            assert (await q.publish("kept", b"", id="1", deadline_s=DEADLINE_S)).duplicate
            await serves(q, "again")

    asyncio.run(main())


@contextlib.contextmanager
def strangers(gate: Gate) -> Iterator[None]:
    """More connections than it can have, which say nothing."""
    with contextlib.ExitStack() as sockets:
        for _ in range(CROWD):
            sockets.enter_context(socket.create_connection(("127.0.0.1", int(gate.endpoint.rpartition(":")[2]))))
        wait_until(lambda: is_full(gate))
        yield


def test_a_gate_that_is_full_of_strangers_serves_the_peers_that_it_has_and_then_others() -> None:
    async def main(gate: Gate) -> None:
        async with gate.client("far") as q:
            await q.publish("in.before", b"")
            with strangers(gate):
                await q.publish("in.full", b"", deadline_s=DEADLINE_S)
            async with gate.client("far") as late:
                await late.publish("in.after", b"", deadline_s=DEADLINE_S)

    with guarded() as gate:
        gate.broker.grant("far", ALL, outside=True)
        gate.stop()
        gate.broker.python = FEW_FILES
        gate.start()
        asyncio.run(main(gate))
        with strangers(gate):
            assert gate.stop() == 0

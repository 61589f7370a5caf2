"""What strangers and bad members do to the broker: it answers with an error or closes, keeps its size, serves on."""

import asyncio
import contextlib
import itertools
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.queue import wire
from appliance.queue.auth import join_curve
from appliance.queue.client import QueueClient
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import ALL, Broker, running
from tests.unit.queue.taps import Tap
from tests.unit.queue.test_work import SOON_S, account, first, wait_account

DEADLINE_S = 4 * SOON_S
MIB = 2**20


@pytest.fixture(scope="module")
def known(broker: Broker) -> Iterator[Peer]:
    """A member that behaves badly, for as long as the module's tests last."""
    with Peer(broker.connection()) as peer:
        yield peer


def port_of(broker: Broker) -> int:
    return int(broker.endpoint.rpartition(":")[2])


def memory(broker: Broker) -> int:
    assert broker.process is not None
    return int(psutil.Process(broker.process.pid).memory_info().rss)


async def serves(q: QueueClient, name: str) -> None:
    """A message goes its whole way."""
    await q.publish(f"serves.{name}", b"", deadline_s=DEADLINE_S)
    deliveries = q.consume(f"serves.{name}")
    async with asyncio.timeout(DEADLINE_S):
        await (await anext(deliveries)).done(deadline_s=DEADLINE_S)
    await deliveries.aclose()


def still_serves(broker: Broker, name: str) -> None:
    async def main() -> None:
        async with broker.client() as q:
            await serves(q, name)

    asyncio.run(main())


GREETING = b"\xff" + bytes(8) + b"\x7f"
OPENINGS = {
    "nothing": b"",
    "half a greeting": GREETING[:6],
    "another protocol": b"GET / HTTP/1.1\r\nHost: queue\r\n\r\n",
    "ZMTP 1.0": b"\x01\x00",
    "ZMTP 2.0": GREETING + b"\x01\x05\x00\x00",
    "no encryption": GREETING + b"\x03\x00NULL" + bytes(48) + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER",
    "a mechanism that is none": GREETING + b"\x03\x00XXXXX" + bytes(47),
    "CURVE, and then a frame of 4 GiB": GREETING + b"\x03\x00CURVE" + bytes(47) + b"\x06\0\0\0\x01" + bytes(4),
}


def test_random_bytes_from_strangers_change_nothing(broker: Broker) -> None:
    chance = random.Random(11)
    before = memory(broker)
    for _ in range(400):
        opening = chance.choice(list(OPENINGS.values()))
        with socket.create_connection(("127.0.0.1", port_of(broker))) as stranger:
            stranger.settimeout(0.001)
            try:
                stranger.sendall(opening + chance.randbytes(chance.choice((0, 1, 100, 5000))))
                stranger.recv(4096)
            except OSError:
                continue  # it was closed, or has nothing to say
    still_serves(broker, "strangers")
    assert memory(broker) < before + 64 * MIB


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS.keys())
def test_a_handshake_that_is_none_or_never_ends_is_closed(broker: Broker, opening: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port_of(broker))) as stranger:
        stranger.sendall(opening)
        stranger.settimeout(DEADLINE_S)
        try:
            while stranger.recv(4096):
                pass
        except ConnectionResetError:
            return


PIECE = st.binary(max_size=40) | st.sampled_from([b"ARQ1", *wire.TO_BROKER, *wire.TO_CLIENT])


@settings(max_examples=300, deadline=None)
@given(frames=st.lists(PIECE, min_size=1, max_size=6))
def test_random_frames_from_a_member_are_answered_and_the_session_can_be_opened_again(
    known: Peer, frames: list[bytes]
) -> None:
    known.send_frames(frames)
    known.hello()


def test_a_recorded_connection_is_worth_nothing(broker: Broker) -> None:
    broker.grant("recorded", ALL)
    with Tap(port_of(broker)) as tap:
        with Peer(broker.connection("recorded", endpoint=tap.endpoint)) as peer:
            assert peer.publish("replay", "replay-1") == wire.STORED
            peer.send(wire.Emit(1, "replay"), b"once")
            peer.receive(wire.Results)
        recorded = bytes(tap.said)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port_of(broker))) as thief:
            thief.settimeout(DEADLINE_S)
            thief.sendall(recorded)
            try:
                while thief.recv(4096):
                    pass
            except ConnectionResetError:
                continue
    assert broker.log().count("recorded is here") == 1


def test_what_is_repeated_inside_a_connection_ends_it_and_counts_once(broker: Broker) -> None:
    broker.grant("repeated", ALL)
    with Tap(port_of(broker)) as tap, Peer(broker.connection("repeated", endpoint=tap.endpoint)) as peer:
        tap.repeat.set()
        peer.send(wire.Hello("again"))
        assert tap.cut.wait(DEADLINE_S)
        still_serves(broker, "repeated")
        assert broker.log().count("repeated is here") <= 2  # of the two that were sent one


def test_frames_that_are_sent_again_change_nothing(broker: Broker) -> None:
    async def look() -> None:
        async with broker.client() as q:
            await wait_account(q, "again", ready=0, leased=0, done_total=1)

    with Peer(broker.connection()) as peer:
        for status in (wire.STORED, wire.DUPLICATE, wire.DUPLICATE):
            assert peer.publish("again", "again-1") == status
        token = peer.take("again").token
        for _ in range(3):
            assert peer.settle(token).statuses == (wire.STORED,)
        assert peer.settle(token, wire.RETRY).statuses == (wire.STALE,)
    asyncio.run(look())


def test_a_flood_from_members_leaves_the_others_their_turn_and_the_broker_its_size() -> None:
    over = threading.Event()
    numbers = itertools.count()

    def rude(broker: Broker) -> None:
        """Publishes and never reads an answer; comes back when it is thrown out."""
        while not over.is_set():
            with Peer(broker.connection("flooder"), high_water=64) as peer:
                for _ in range(100):
                    items = tuple(wire.Item("flood", f"{next(numbers)}") for _ in range(256))
                    peer.try_send(wire.to_broker(wire.Publish(1, items), [b"x" * 256] * 256))
                    if over.is_set():
                        return

    async def main(broker: Broker) -> None:
        async with broker.client() as q:
            for number in range(10):
                await serves(q, f"flood-{number}")
            assert (entry := await account(q, "flood")) is not None
            assert entry.ready > 0

    with running(max_depth=300_000) as broker:
        broker.grant("flooder", ALL)
        floods = [threading.Thread(target=rude, args=(broker,)) for _ in range(2)]
        for flood in floods:
            flood.start()
        try:
            asyncio.run(main(broker))
        finally:
            over.set()
            for flood in floods:
                flood.join()
        assert memory(broker) < 512 * MIB


def test_a_thousand_clients_that_connect_at_once_are_all_served(broker: Broker) -> None:
    number = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.max_sockets = number + 100
    before = memory(broker)
    connection = broker.connection()
    with context:
        crowd = [context.socket(zmq.DEALER) for _ in range(number)]
        for each in crowd:
            each.linger = 0
            join_curve(each, connection.keys, connection.server_key)
            each.connect(connection.endpoint)
            each.send_multipart(wire.to_broker(wire.Hello("one of many")))
        end = time.monotonic() + DEADLINE_S
        for each in crowd:
            assert each.poll(max(0, int((end - time.monotonic()) * 1000))), "one was not let in"
            assert isinstance(wire.from_broker(each.recv_multipart())[0], wire.Welcome)
        for n, each in enumerate(crowd):
            each.send_multipart(wire.to_broker(wire.Publish(1, (wire.Item("crowd", f"crowd-{n}"),)), [b""]))
        for each in crowd:
            assert each.poll(int(DEADLINE_S * 1000)), "one was not answered"
            results = wire.from_broker(each.recv_multipart())[0]
            assert isinstance(results, wire.Results)
            assert results.statuses == (wire.STORED,)
        assert memory(broker) < before + 256 * MIB
        for each in crowd:
            each.close()
    still_serves(broker, "crowd")


def endless(broker: Broker, size: int) -> None:
    """Send one message of `size` bytes and return when the connection is gone; its frames are one and the same here."""
    connection = broker.connection("endless")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as attacker:
        attacker.linger = 0
        attacker.reconnect_ivl = -1
        join_curve(attacker, connection.keys, connection.server_key)
        monitor = attacker.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        attacker.connect(connection.endpoint)
        frame = zmq.Frame(bytes(2**14))
        for _ in range(size // 2**14):
            attacker.send(frame, zmq.SNDMORE, copy=False)
        attacker.send(b"the end")
        assert monitor.poll(int(DEADLINE_S * 1000)), "the broker still takes more"
        attacker.disable_monitor()
        monitor.close()


def test_a_message_without_end_costs_the_connection_or_a_restart_and_nothing_acknowledged() -> None:
    """libzmq cannot bound it, the process's memory limit does. Who is not of the machine comes through the gate."""
    limit = 400 * MIB

    async def main(broker: Broker) -> None:
        async with broker.client() as q:
            await q.publish("kept", b"", id="1")
            held = await first(q.consume("kept"))
            await asyncio.to_thread(endless, broker, 4 * limit)
            assert broker.process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(broker.process.wait, 1.0)
                await asyncio.to_thread(broker.start)
            assert (await q.publish("kept", b"", id="1", deadline_s=DEADLINE_S)).duplicate
            assert not (await q.publish("kept", b"", id="2", deadline_s=DEADLINE_S)).duplicate
            await held.done(deadline_s=DEADLINE_S)
            await wait_account(q, "kept", ready=1, leased=0, done_total=1)
            assert memory(broker) < limit

    with running() as broker:
        broker.grant("endless", ALL)
        broker.stop()
        broker.start(python=("prlimit", f"--data={limit}", "--core=0", sys.executable))
        asyncio.run(main(broker))

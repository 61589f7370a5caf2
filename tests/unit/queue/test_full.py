"""A full disk: nothing is lost, everybody hears the truth, and it goes on by itself when there is room."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from appliance.contracts.traffic import QueueStats
from appliance.queue import logged_store, wire
from appliance.queue.client import QueueBusy, QueueClient
from appliance.queue.engine import FULL_FOR_NEW_S, FULL_PAUSE_S
from appliance.queue.logged_store import open_store
from appliance.queue.sqlite_file import LONG_LOG_PAGES, PAGE
from appliance.queue.store import State
from tests.unit.queue.desk import Desk
from tests.unit.queue.narrow import NarrowStore
from tests.unit.queue.peers import Peer
from tests.unit.queue.running import Broker
from tests.unit.queue.test_security import wait_until

SOON_S = 30.0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, lease_s=10.0, heartbeat_s=2.0)
    desk.store.close()
    desk.start(NarrowStore(tmp_path / "queue.sqlite"))
    for name in ("alice", "bob"):
        desk.hello(name)
        desk.heard(name)
    yield desk
    desk.store.close()


def narrow(desk: Desk, room: int | None) -> None:
    assert isinstance(desk.store, NarrowStore)
    desk.store.room = room


def wait(desk: Desk, seconds: float, held: tuple[wire.Token, ...] = ()) -> None:
    """Let time pass, with a heartbeat of each client every second."""
    while seconds > 0:
        desk.clock.advance(min(1.0, seconds))
        seconds -= 1.0
        for name in ("alice", "bob"):
            desk.send(name, wire.Heartbeat(held))


def busy(desk: Desk) -> bool:
    desk.send("bob", wire.Call(9, "queue.stats", 5.0), b"")
    stats = next(body[0] for header, body in desk.heard("bob") if isinstance(header, wire.Reply))
    return msgspec.msgpack.decode(stats, type=QueueStats).busy


def test_a_publish_is_busy_and_stored_later_and_the_session_stays(desk: Desk) -> None:
    assert desk.publish("alice", wire.Item("a", "1")) == wire.STORED
    narrow(desk, 0)
    results = desk.ask("alice", wire.Publish(1, (wire.Item("a", "2"), wire.Item("no name", "3"))), b"", b"")
    assert results.statuses == (wire.BUSY, wire.REFUSED)
    assert [trouble.retry_after_s for trouble in results.troubles if trouble.index == 0] == [FULL_PAUSE_S]
    assert busy(desk)
    wait(desk, 5.0)
    assert desk.publish("alice", wire.Item("a", "2")) == wire.BUSY
    narrow(desk, None)
    wait(desk, FULL_PAUSE_S + FULL_FOR_NEW_S + 1)
    assert not busy(desk)
    assert desk.publish("alice", wire.Item("a", "2")) == wire.STORED
    assert desk.publish("alice", wire.Item("a", "1")) == wire.DUPLICATE
    desk.consume("alice", "a", credit=5)
    assert [handed.id for handed in desk.deliveries("alice")] == ["1", "2"]


def test_new_messages_wait_for_as_long_as_the_store_has_something_to_make_up_for(desk: Desk) -> None:
    assert desk.publish("alice", wire.Item("a", "1")) == wire.STORED
    desk.consume("bob", "a")
    (handed,) = desk.deliveries("bob")
    narrow(desk, 0)
    assert desk.publish("alice", wire.Item("a", "2")) == wire.BUSY
    narrow(desk, None)
    assert isinstance(desk.store, NarrowStore)
    desk.store.waits = True
    wait(desk, FULL_PAUSE_S + 2 * FULL_FOR_NEW_S, (handed.token,))
    assert desk.settle("bob", handed.token) == wire.STORED
    assert desk.publish("alice", wire.Item("a", "2")) == wire.BUSY
    desk.store.waits = False
    wait(desk, 1.0)
    assert desk.publish("alice", wire.Item("a", "2")) == wire.STORED
    desk.store.waits = True
    wait(desk, 1.0)
    assert desk.publish("alice", wire.Item("a", "3")) == wire.STORED


@pytest.mark.parametrize("room", range(6))
@pytest.mark.parametrize("outcome", [wire.DONE, wire.RETRY, wire.REJECT, wire.RELEASE])
def test_a_settle_is_busy_and_the_lease_goes_on_as_it_was(desk: Desk, outcome: int, room: int) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    narrow(desk, room)
    status = desk.settle("alice", handed.token, outcome, 5.0)
    if status == wire.STORED:  # there was room for it
        narrow(desk, None)
    else:
        assert status == wire.BUSY
        assert desk.settle("alice", handed.token, outcome, 5.0) == wire.BUSY
        wait(desk, 12.0, (handed.token,))
        assert desk.deliveries("bob") == []
        narrow(desk, None)
        wait(desk, FULL_PAUSE_S + 1, (handed.token,))
        assert desk.settle("alice", handed.token, outcome, 5.0) == wire.STORED
    ledger = desk.engine._work.ledger.of("a")
    expected = {wire.DONE: (0, 0, 1, 0), wire.REJECT: (0, 0, 0, 1)}.get(outcome, (1, 0, 0, 0))
    assert (ledger.ready, ledger.leased, ledger.done_total, ledger.dead) == expected
    assert desk.engine._work.dispatch.consumers[0].out == 0
    desk.restart()
    assert desk.engine._work.ledger.of("a") == ledger


def test_a_move_that_had_no_room_has_moved_nothing(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("alice", "a")
    (handed,) = desk.deliveries("alice")
    move = wire.Move(4, handed.token, wire.Item("b", "2"))
    narrow(desk, 0)
    assert desk.ask("alice", move, b"").statuses == (wire.BUSY,)
    narrow(desk, None)
    wait(desk, FULL_PAUSE_S + FULL_FOR_NEW_S + 1, (handed.token,))
    assert desk.ask("alice", move, b"").statuses == (wire.STORED,)
    assert desk.ask("alice", move, b"").statuses == (wire.DUPLICATE,)


def test_what_could_not_be_leased_is_not_delivered_before_it_can(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    narrow(desk, 0)
    desk.consume("alice", "a")
    assert desk.deliveries("alice") == []
    narrow(desk, None)
    wait(desk, FULL_PAUSE_S + 1)
    (handed,) = desk.deliveries("alice")
    assert handed.attempt == 1
    assert desk.settle("alice", handed.token) == wire.STORED


def later(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1", delay_s=1.0))


def lapse(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    desk.send("bob", wire.Consume(2, 5, "a", 1))
    desk.deliveries("bob")
    desk.send("bob", wire.Cancel(5))
    wait(desk, 9.5)


@pytest.mark.parametrize("room", range(5))
@pytest.mark.parametrize("begin", [later, lapse])
def test_time_that_passes_while_the_disk_is_full_is_made_up_for(
    desk: Desk, begin: Callable[[Desk], None], room: int
) -> None:
    begin(desk)
    desk.consume("alice", "a")
    narrow(desk, room)
    wait(desk, 4.0)
    narrow(desk, None)
    wait(desk, FULL_PAUSE_S + 1)
    (handed,) = desk.deliveries("alice")
    assert handed.attempt == (1 if begin is later else 2)
    assert desk.settle("alice", handed.token) == wire.STORED


def test_an_item_that_expires_on_a_full_disk_is_not_delivered(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1", expires_s=2.0))
    narrow(desk, 0)
    wait(desk, 4.0)
    desk.consume("alice", "a")
    narrow(desk, None)
    wait(desk, FULL_PAUSE_S + 1)
    assert desk.deliveries("alice") == []
    assert desk.engine._work.ledger.of("a").expired_total == 1


def test_a_client_that_leaves_a_full_broker_gives_its_work_back_later(desk: Desk) -> None:
    desk.publish("alice", wire.Item("a", "1"))
    desk.consume("bob", "a")
    narrow(desk, 0)
    desk.publish("alice", wire.Item("a", "2"))
    desk.send("bob", wire.Bye())
    desk.consume("alice", "a", 2)
    narrow(desk, None)
    wait(desk, FULL_PAUSE_S + 1)
    assert [(handed.id, handed.attempt) for handed in desk.deliveries("alice")] == [("1", 2)]


def test_tables_that_have_no_room_lose_nothing_and_hold_nobody_up_while_the_log_has_some(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HAND_OVER_BYTES": 20_000, "MOST_BYTES": 200_000, "AGAIN_S": 0.0}.items():
        monkeypatch.setattr(logged_store, name, value)
    assert isinstance(desk.store, NarrowStore)
    desk.store.tables.commits = False
    stored = [n for n in range(100) if desk.publish("alice", wire.Item("a", str(n)), b"x" * 4000) == wire.STORED]
    assert stored == list(range(len(stored)))
    assert 200_000 // 4100 <= len(stored) < 60
    desk.store.tables.commits = True
    wait(desk, FULL_PAUSE_S + FULL_FOR_NEW_S + 1)
    assert desk.publish("alice", wire.Item("a", str(stored[0]))) == wire.DUPLICATE
    assert desk.publish("alice", wire.Item("a", "last")) == wire.STORED
    desk.consume("alice", "a", credit=1000)
    assert [handed.id for handed in desk.deliveries("alice")] == [*map(str, stored), "last"]


@contextlib.contextmanager
def on_a_small_disk(mib: int = 4) -> Iterator[tuple[Broker, Path]]:
    """A broker whose state is on so much, in a mount namespace of its own, and a file of somebody else's that takes
    half of it.
    """
    with tempfile.TemporaryDirectory(prefix="arq") as directory:
        broker = Broker(Path(directory))
        state = f"{directory}/state"
        mount = f"mount -t tmpfs -o size={mib}m none {state}"
        script = f'{mount} && head -c {mib // 2}M /dev/zero >{state}/other && exec "$0" "$@"'
        alone = ("unshare", "--user", "--map-root-user", "--mount")
        broker.start(python=(*alone, "sh", "-c", script, sys.executable))
        assert broker.process is not None
        try:
            yield broker, Path(f"/proc/{broker.process.pid}/root{state}/other")
        finally:
            broker.stop()


def test_a_disk_that_is_really_full_loses_nothing_and_goes_on_by_itself_when_there_is_room() -> None:
    async def fill(q: QueueClient) -> list[str]:
        """Publish until nothing more is taken, the small ones after the large ones."""
        stored = []
        for size in (100_000, 1000, 10):
            names = (f"{size}-{n}" for n in range(1000))
            with contextlib.suppress(QueueBusy):
                for name in names:
                    await q.publish("full", b"x" * size, id=name, deadline_s=SOON_S)
                    stored.append(name)
            assert next(names, None) is not None, "it never became full"
        return stored

    async def main(broker: Broker, other: Path) -> None:
        async with broker.client() as q:
            await q.publish("before", b"", id="before")
            async with asyncio.timeout(SOON_S):
                held = await anext(q.consume("before"))
            stored = await fill(q)
            assert (await q.call("queue.stats", None, QueueStats)).busy
            ending = asyncio.create_task(held.done(deadline_s=SOON_S))
            for n in range(3):  # the settle may be among what had no room
                with pytest.raises(QueueBusy):
                    await q.publish("full", b"x" * 100_000, id=f"late-{n}", deadline_s=SOON_S)
            await asyncio.to_thread(other.unlink)
            await ending
            taken = []
            async with asyncio.timeout(SOON_S):
                async for delivery in q.consume("full", credit=4):
                    taken.append(delivery.id)
                    await delivery.done(deadline_s=SOON_S)
                    if len(taken) == len(stored):
                        break
                while (await q.call("queue.stats", None, QueueStats)).busy:  # noqa: ASYNC110  (the broker's own)
                    await asyncio.sleep(0.05)
            assert taken == stored
            assert (await q.publish("full", b"", id=stored[0], deadline_s=SOON_S)).duplicate
            assert not (await q.publish("full", b"x" * 100_000, id="late-0", deadline_s=SOON_S)).duplicate

    with on_a_small_disk() as (broker, other):
        asyncio.run(main(broker, other))
        assert "the store has room again" in broker.log()


WAITS = "the log of the queue's store waits for room on the disk"


def fill(disk: Path) -> Path:
    """Take all that is left of a disk; return the file that does."""
    file = disk / "all-the-rest"
    with file.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(bytes(2**16))
    return file


def round_of(log: Path) -> int:
    """Return how often the log was brought into the file as a whole (sqlite.org/fileformat2.html, 4.1)."""
    return int.from_bytes(log.read_bytes()[12:16])


def all_taken(peer: Peer, address: str, number: int) -> list[str]:
    """Take so many messages, and end each."""
    peer.send(wire.Consume(8, 8, address, 4))
    ids: list[str] = []
    while len(ids) < number:
        for handed in peer.receive(wire.Deliver)[0].items:
            ids.append(handed.id)
            peer.send(wire.Settle(9, (wire.Outcome(handed.token, wire.DONE),)))
    return ids


def test_a_disk_that_is_full_at_a_checkpoint_holds_nobody_up_and_loses_nothing(tmp_path: Path) -> None:
    """The log has room where it is written over, the file has none to grow."""
    mib = 2**20
    most = LONG_LOG_PAGES * PAGE // 2 // mib
    stored = [f"early-{n}" for n in range(2 * most)]

    def publish(peer: Peer, size: int = mib) -> int:
        status = peer.publish("work", f"late-{len(stored)}", bytes(size))
        if status == wire.STORED:
            stored.append(f"late-{len(stored)}")
        return status

    with on_a_small_disk(14 * most) as (broker, other), Peer(broker.connection()) as peer:
        file = other.with_name("queue.sqlite")
        assert peer.publish("held", "held") == wire.STORED
        held = peer.take("held")
        peer.send(wire.Publish(1, tuple(wire.Item("work", name) for name in stored)), *[bytes(mib)] * len(stored))
        assert set(peer.receive(wire.Results)[0].statuses) == {wire.STORED}
        wait_until(lambda: file.stat().st_size > len(stored) * mib)
        rest = fill(other.parent)
        while WAITS not in broker.log():
            assert publish(peer) == wire.STORED
        assert peer.settle(held.token).statuses == (wire.STORED,)
        broker.signal(signal.SIGSTOP)
        copy = shutil.copytree(file.parent, tmp_path / "copy", ignore=lambda *_: [other.name, rest.name])
        acknowledged = len(stored)
        broker.signal(signal.SIGCONT)
        while (status := publish(peer)) == wire.STORED:
            pass
        assert status == wire.BUSY, "now the log has no room either"
        log = file.with_name("queue.sqlite-wal")
        before, room = round_of(log), log.stat().st_size + 4 * mib
        os.truncate(other, other.stat().st_size + rest.stat().st_size - room)
        rest.unlink()  # there is room for what the log holds, and not for twice as much
        wait_until(lambda: publish(peer, mib // 10) == wire.STORED)
        assert round_of(log) > before, "what room there is goes to the file before the log takes it"
        assert all_taken(peer, "work", len(stored)) == stored
    with contextlib.closing(open_store(copy / "queue.sqlite")) as store:
        found = [brief.id for brief in store.browse("work", State.READY, 0, 1000)]
        assert found[:acknowledged] == stored[:acknowledged]
        with contextlib.closing(store.still()) as still:
            assert still.check() == []

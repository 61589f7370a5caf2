"""What the box is asked about its guests, answered by an emulator that is really there."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from appliance.contracts.machine import GuestNamed, Guests
from appliance.errors import NotFound, Unavailable
from appliance.host.accelerator import EMULATOR
from appliance.host.guest import Guest
from appliance.host.monitor import GuestAway
from appliance.supervisor.guestcalls import GuestCalls
from appliance.topology import File, Machine, Tap

WHY = ("Virtual machines are emulated and slow: this machine has no KVM.",)


@contextmanager
def emulator(path: Path) -> Iterator[None]:
    """A QEMU with nothing in it that answers at `path`; it listens there before it forks into the background."""
    pid_file = path.with_suffix(".pid")
    monitor = f"unix:{path},server=on,wait=off"
    command = (EMULATOR, "-M", "none", "-display", "none", "-qmp", monitor, "-daemonize", "-pidfile", str(pid_file))
    subprocess.run(command, check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(("kill", pid_file.read_text().strip()), check=True, timeout=10)


def calls(path: Path) -> GuestCalls:
    """The calls of a machine with one guest, whose emulator answers at `path`."""
    guest = Guest(
        name="srv-1", tap="vm", mac="02:00:00:00:00:01", cpus=1, memory_mb=256, accelerator="tcg", credentials={},
        qmp=str(path), stop_s=1.0,
    )  # fmt: skip
    document = File(path="/run/alpha-ren/srv-1/guest.json", content=msgspec.json.encode(guest).decode())
    # What a guest left behind is no guest.
    former = msgspec.structs.replace(document, path="/run/alpha-ren/srv-2/guest.json")
    tap = Tap(namespace="srv-1", name="vm", mac="02:00:00:00:00:02", group=415, addresses=())
    machine = Machine(taps=(tap,), files=(document, former))
    return GuestCalls(lambda: machine, lambda: WHY)


def named(instance: str) -> bytes:
    """The body that names a guest."""
    return msgspec.json.encode(GuestNamed(instance=instance))


async def state(asked: GuestCalls) -> str:
    """The state of the one guest."""
    answer = await asked.calls["guests"](b"{}")
    assert isinstance(answer, Guests)
    assert answer.notes == WHY
    [guest] = answer.guests
    assert (guest.instance, guest.accelerator, guest.memory_mb) == ("srv-1", "tcg", 256)
    return guest.state


def test_a_guest_is_told_held_and_let_go_on(tmp_path: Path) -> None:
    async def work(asked: GuestCalls) -> None:
        assert await state(asked) == "running"
        await asked.calls["guest.pause"](named("srv-1"))
        assert await state(asked) == "paused"
        await asked.calls["guest.resume"](named("srv-1"))
        assert await state(asked) == "running"

    path = tmp_path / "qmp.sock"
    with emulator(path):
        asyncio.run(work(calls(path)))


def test_an_emulator_that_is_away_is_told_as_such_and_cannot_be_held(tmp_path: Path) -> None:
    async def work(asked: GuestCalls) -> None:
        assert await state(asked) == "away"
        with pytest.raises(GuestAway):
            await asked.calls["guest.pause"](named("srv-1"))

    asyncio.run(work(calls(tmp_path / "qmp.sock")))


@pytest.mark.parametrize("name", ["srv-2", "queue", ""])
def test_who_is_no_guest_cannot_be_held(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        asyncio.run(_pause(calls(tmp_path / "qmp.sock"), name))


def test_before_the_machine_is_laid_out_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        asyncio.run(_pause(GuestCalls(lambda: None, tuple), "srv-1"))


async def _pause(asked: GuestCalls, name: str) -> None:
    await asked.calls["guest.pause"](named(name))

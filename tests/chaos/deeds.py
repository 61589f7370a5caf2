"""How each fault of the schedule is done, and undone."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

from tests.chaos.nemesis import Kind, Step
from tests.chaos.proxy import Mode
from tests.chaos.stage import LEASE_S, Actor, Stage, Unexpected

Deed = Callable[[Stage, Step], Awaitable[None]]
FAR_S = 7200.0
"""How far a clock jumps."""


def _one_of(actors: list[Actor], step: Step) -> Actor:
    return random.Random(step.seed).choice(actors)


async def _kill_broker(stage: Stage, _step: Step) -> None:
    await stage.kill()
    await stage.start()


async def _power_cut(stage: Stage, _step: Step) -> None:
    await stage.kill(cut="")
    await stage.start()


async def _torn_power_cut(stage: Stage, step: Step) -> None:
    await stage.kill(cut=step.seed)
    await stage.start()


async def _restart_broker(stage: Stage, _step: Step) -> None:
    await stage.stop()
    await stage.start()


async def _kill_bridge(stage: Stage, _step: Step) -> None:
    await asyncio.to_thread(stage.broker.kill_bridge)
    await asyncio.to_thread(stage.broker.start_bridge)


async def _pause_bridge(stage: Stage, step: Step) -> None:
    assert stage.broker.bridge is not None
    stage.broker.bridge.send_signal(signal.SIGSTOP)
    await asyncio.sleep(step.for_s)
    stage.broker.bridge.send_signal(signal.SIGCONT)


async def _kill_gate(stage: Stage, _step: Step) -> None:
    if stage.gate.running:
        await asyncio.to_thread(stage.gate.kill)


async def _rotate_key(stage: Stage, step: Step) -> None:
    """The key that was announced is taken into use, and the other clusters are told of the one after it."""
    stage.rotate_keys()
    await _restart_broker(stage, step)


async def _backup(stage: Stage, _step: Step) -> None:
    await stage.back_up()


async def _purge(stage: Stage, step: Step) -> None:
    await stage.operate("purge", "dead", step.seed)
    await stage.operate("purge", "ready", step.seed)


async def _requeue(stage: Stage, step: Step) -> None:
    await stage.operate("requeue", "dead", step.seed)


async def _pause_broker(stage: Stage, step: Step) -> None:
    stage.broker.signal(signal.SIGSTOP)
    await asyncio.sleep(step.for_s)
    stage.broker.signal(signal.SIGCONT)


async def _pause_consumer(stage: Stage, step: Step) -> None:
    consumer = _one_of(stage.consumers, step)
    consumer.signal(signal.SIGSTOP)
    await asyncio.sleep(step.for_s + LEASE_S)
    consumer.signal(signal.SIGCONT)


async def _kill_consumer(stage: Stage, step: Step) -> None:
    _one_of(stage.consumers, step).signal(signal.SIGKILL)


async def _kill_producer(stage: Stage, step: Step) -> None:
    _one_of(stage.producers, step).signal(signal.SIGKILL)


def _network(mode: Mode) -> Deed:
    async def deed(stage: Stage, step: Step) -> None:
        await stage.proxy.set(mode)
        await asyncio.sleep(step.for_s)
        await stage.proxy.set("pass")

    return deed


async def _full_disk(stage: Stage, step: Step) -> None:
    before = stage.layer.count("refused")
    stage.layer.fault("full")
    await asyncio.sleep(step.for_s)
    stage.layer.fault("none")
    stage.note("calls that met the full disk", stage.layer.count("refused") - before)


async def _fail(stage: Stage, fault: str) -> None:
    """Let the disk fail until the broker has ended of it, as it must, and start it again."""
    stage.layer.fault(fault)
    status = await stage.ended()
    if status <= 0:
        raise Unexpected(f"the broker's disk failed and it ended with {status}")
    stage.note(f"ended by the {fault} error")
    stage.layer.fault("none")
    await stage.start()


async def _write_error(stage: Stage, _step: Step) -> None:
    await _fail(stage, "write")


async def _sync_error(stage: Stage, step: Step) -> None:
    """What the failed sync left in the page cache is not on the disk: the power cut that follows shows it."""
    await _fail(stage, "sync")
    await asyncio.sleep(step.for_s)
    await _power_cut(stage, step)


def _clock(offset_s: float) -> Deed:
    async def deed(stage: Stage, step: Step) -> None:
        stage.set_clock(offset_s)
        await asyncio.sleep(step.for_s)
        stage.set_clock(0.0)

    return deed


DEEDS: dict[Kind, Deed] = {
    "kill-broker": _kill_broker,
    "power-cut": _power_cut,
    "torn-power-cut": _torn_power_cut,
    "pause-broker": _pause_broker,
    "restart-broker": _restart_broker,
    "pause-consumer": _pause_consumer,
    "kill-consumer": _kill_consumer,
    "kill-producer": _kill_producer,
    "kill-bridge": _kill_bridge,
    "pause-bridge": _pause_bridge,
    "kill-gate": _kill_gate,
    "rotate-key": _rotate_key,
    "backup": _backup,
    "purge": _purge,
    "requeue": _requeue,
    "cut-network": _network("cut"),
    "hold-network": _network("hold"),
    "one-way-network": _network("one-way"),
    "full-disk": _full_disk,
    "write-error": _write_error,
    "sync-error": _sync_error,
    "clock-ahead": _clock(FAR_S),
    "clock-behind": _clock(-FAR_S),
}

"""Runs flows: takes messages from the queue, runs their stage, and moves them on or delivers them."""

import asyncio
import logging
import time

from appliance.arsrv.backoff import retry_delay_s
from appliance.arsrv.delivery import DeliveryFailed, HttpSender
from appliance.arsrv.envelope import Envelope, stage_id
from appliance.arsrv.steps import StepFailed, run_step
from appliance.arsrv.targets import ForbiddenTarget
from appliance.contracts.flow import Flow, Flows, stage_address, stage_of
from appliance.errors import InvalidInput
from appliance.queue.client import Delivery, LeaseLost, QueueBusy, QueueClient, SettleUnknown

log = logging.getLogger(__name__)

CREDIT = 16
"""Messages of one flow in hand at a time: what keeps a flow whose target is slow from holding up the others."""

DRAIN_S = 4.0

LARGE = 64 * 1024
"""Bodies from this size on are parsed in a thread, so that the event loop goes on."""


CRASHES = 5
"""Attempts that may end with the death of their server, on top of those that the flow allows to fail."""


def most_attempts(flow: Flow, stage: int) -> int | None:
    """Return how often the broker hands out a message at `stage` at most, None for the broker's own limit."""
    return min(1000, flow.deliver.retry.attempts + CRASHES) if stage == len(flow.steps) else None


def time_left_s(flow: Flow, envelope: Envelope) -> float | None:
    """Return the seconds after which the message is not wanted any more, None for never."""
    wanted_s = flow.trigger.expires_s
    return None if wanted_s is None else max(0.0, envelope.received_at + wanted_s - time.time())


class Runner:
    """Follows the event `flows` and runs each flow with a consumer of its own."""

    def __init__(self, queue: QueueClient, sender: HttpSender) -> None:
        self._queue = queue
        self._sender = sender
        self._flows: dict[str, Flow] | None = None
        self._consumed: set[str] = set()
        self._handled: set[asyncio.Task[None]] = set()
        self.revision = 0

    @property
    def knows_flows(self) -> bool:
        """Whether the cluster's flows have been heard."""
        return self._flows is not None

    @property
    def pending(self) -> int:
        """How many messages are in hand."""
        return len(self._handled)

    def flow(self, name: str) -> Flow | None:
        """Return the flow of that name, None where there is none."""
        return (self._flows or {}).get(name)

    async def run(self) -> None:
        """Run all flows until cancelled; what is in hand then has DRAIN_S to end: a planned stop repeats nothing."""
        async with asyncio.TaskGroup() as handlers:
            try:
                await self._follow(handlers)
            finally:
                if self._handled:
                    await asyncio.wait(self._handled, timeout=DRAIN_S)
                for task in self._handled:
                    task.cancel()

    async def _follow(self, handlers: asyncio.TaskGroup) -> None:
        async with asyncio.TaskGroup() as consumers:
            async for event in self._queue.events("flows"):
                try:
                    heard = event.decode(Flows)
                except InvalidInput as error:
                    log.error("the flows as published cannot be read, those known stay: %s", error)
                    continue
                self._flows = {flow.name: flow for flow in heard.flows}
                self.revision = heard.revision
                # The consumer of a flow that was deleted stays: it makes dead letters of what is still under way.
                for name in self._flows.keys() - self._consumed:
                    self._consumed.add(name)
                    consumers.create_task(self._consume(name, handlers), name=f"flow {name}")

    async def _consume(self, name: str, handlers: asyncio.TaskGroup) -> None:
        async for delivery in self._queue.consume(f"flow.{name}.*", credit=CREDIT):
            task = handlers.create_task(self._handle(name, delivery))
            self._handled.add(task)
            task.add_done_callback(self._handled.discard)

    async def _handle(self, name: str, delivery: Delivery) -> None:
        try:
            try:
                await self._advance(name, delivery)
            except (LeaseLost, SettleUnknown):
                raise
            except Exception as error:
                # A fault of ours that one message meets must not stop all the others.
                log.exception("%s of flow %s met an unexpected error", delivery.id, name)
                await delivery.reject(f"The server failed unexpectedly: {error}.")
        except LeaseLost:
            log.warning("%s of flow %s went to another server", delivery.id, name)
        except SettleUnknown as error:
            log.warning("%s of flow %s may come again: %s", delivery.id, name, error)

    async def _advance(self, name: str, delivery: Delivery) -> None:
        flow = self.flow(name)
        stage = stage_of(delivery.address)
        if flow is None or stage >= flow.stages:
            what = "does not exist any more" if flow is None else f"has no stage {stage} any more"
            await delivery.reject(f"The flow {name} {what}.")
            return
        try:
            envelope = delivery.decode(Envelope)
            if stage < len(flow.steps):
                await self._step(flow, stage, envelope, delivery)
            else:
                await self._deliver(flow, envelope, delivery)
        except (InvalidInput, StepFailed, ForbiddenTarget) as error:
            log.warning("%s of flow %s is a dead letter at stage %d: %s", delivery.id, name, stage, error)
            await delivery.reject(error.message)

    async def _step(self, flow: Flow, stage: int, envelope: Envelope, delivery: Delivery) -> None:
        step = flow.steps[stage]
        if len(envelope.body) < LARGE:
            body = run_step(step, envelope.body)
        else:
            body = await asyncio.to_thread(run_step, step, envelope.body)
        if body is None:
            await delivery.done()
            return
        following = Envelope(
            id=envelope.id, content_type=envelope.content_type, received_at=envelope.received_at, body=body
        )
        try:
            await self._queue.move(
                delivery, stage_address(flow.name, stage + 1), following, id=stage_id(envelope, stage + 1),
                expires_s=time_left_s(flow, envelope), max_attempts=most_attempts(flow, stage + 1),
            )  # fmt: skip
        except QueueBusy as busy:
            await delivery.release(busy.retry_after_s, busy.message)

    async def _deliver(self, flow: Flow, envelope: Envelope, delivery: Delivery) -> None:
        try:
            await self._sender.send(flow, envelope)
        except DeliveryFailed as failure:
            retry = flow.deliver.retry
            reason = f"Attempt {delivery.attempt} of {retry.attempts}: {failure.message}"
            log.info("%s of flow %s: %s", envelope.id, flow.name, reason)
            if delivery.attempt >= retry.attempts:
                await delivery.reject(reason)
                return
            delay_s = max(retry_delay_s(retry, delivery.attempt), min(failure.retry_after_s, retry.max_s))
            await delivery.retry(delay_s, reason)
        else:
            await delivery.done()

"""The bridge's process: takes messages for other clusters to their brokers. `python3 -m appliance.queue.bridge`

Each route sends one message of many items at a time, and the next only when the other side has answered: what was not
stored there goes first again, in the same order, so nothing overtakes. A delivery ends here only after it is on the
other side's disk; whatever is sent twice is a duplicate there.
"""

import asyncio
import contextlib
import logging
import random
import sys
import time
from typing import NoReturn

from appliance import notify
from appliance.contracts.bridge import RoutesStatus, RouteStatus
from appliance.contracts.letters import Browse
from appliance.contracts.service import load
from appliance.contracts.traffic import Messages
from appliance.errors import ApplianceError, DeadlinePassed
from appliance.queue import wire
from appliance.queue.address import Home
from appliance.queue.client import Connection, Handler, QueueClient, Request, connection_of
from appliance.queue.errors import SettleUnknown
from appliance.queue.pace import Pace
from appliance.queue.settings import BridgeSettings, RouteSettings
from appliance.queue.transit import MAX_BYTES, Crate, Transit

log = logging.getLogger(__name__)

CREDIT = wire.MAX_CREDIT
SETTLED_WITHIN_S = 10.0
BACKOFF_S = (0.2, 15.0)
SHORTEST_REST_S = 0.02
AGAIN_S = 2.0


class Route:
    """One cluster, taken care of for ever."""

    def __init__(self, settings: RouteSettings, home: Home, local: QueueClient, remote: QueueClient) -> None:
        self._settings = settings
        self._home = home
        self._local = local
        self._remote = remote
        self._transit = Transit()
        self._news = asyncio.Event()
        self._pace = Pace(settings.messages_per_s, settings.bytes_per_s, asyncio.get_running_loop().time())
        self._problem = ""
        self._sent = self._bytes = self._duplicates = self._refused = 0

    async def status(self) -> RouteStatus:
        """Return how it goes. Raises what the local broker refuses."""
        oldest_at = self._transit.oldest_at()
        if oldest_at is None:
            query = Browse(address=f"{self._settings.to}/*", state="ready", limit=1)
            waiting = (await self._local.call("queue.browse", query, Messages)).messages
            oldest_at = waiting[0].published_at if waiting else None
        connected = self._remote.connected
        return RouteStatus(
            to=self._settings.to,
            endpoint=self._settings.endpoint,
            connected=connected,
            sent_total=self._sent,
            bytes_total=self._bytes,
            duplicate_total=self._duplicates,
            refused_total=self._refused,
            in_hand=len(self._transit),
            lag_s=0.0 if oldest_at is None else max(0.0, time.time() - oldest_at),
            # It stays known until something has gone through, which is not to be seen where nothing waits.
            problem="" if connected and oldest_at is None else self._problem,
            next_key=next(iter(self._remote.server_keys[1:]), ""),
        )

    async def run(self) -> NoReturn:
        """Carry; while the other side is away everything is given back untouched, and waits on the disk."""
        failures = 0
        while True:
            sent = self._sent
            try:
                await self._remote.wait_connected(self._settings.answer_s)
            except DeadlinePassed as error:
                self._failed(error)
                continue
            try:
                # A task of its own: before Python 3.13 one in which a TaskGroup failed can have no more timeouts.
                await asyncio.create_task(self._carry())
            except* ApplianceError as errors:
                self._failed(errors.exceptions[0])
            finally:
                await self._end_unsent(list(self._transit), wire.RELEASE)
            failures = 0 if self._sent > sent else failures + 1
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(BACKOFF_S[1], BACKOFF_S[0] * 2 ** min(failures, 10)))

    def _failed(self, error: BaseException) -> None:
        problem = error.message if isinstance(error, ApplianceError) else str(error)
        if problem != self._problem:
            log.warning("%s: %s", self._settings.to, problem)
        self._problem = problem

    async def _carry(self) -> None:
        """Carry until something fails."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fetch())
            group.create_task(self._send())

    async def _fetch(self) -> None:
        loop = asyncio.get_running_loop()
        async with contextlib.aclosing(self._local.consume(f"{self._settings.to}/*", CREDIT)) as work:
            async for delivery in work:
                self._transit.add(Crate(delivery, loop.time()))
                self._news.set()

    async def _send(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._pace.wait_s(loop.time()))
            self._news.clear()
            most = min(wire.MAX_ITEMS, self._pace.most or wire.MAX_ITEMS)
            chosen = self._transit.next(loop.time(), most, self._remote.max_body or MAX_BYTES)
            if not chosen:
                await self._wait()
            elif crates := await self._fit_to_go(chosen):
                await self._pass_on(crates)

    async def _pass_on(self, crates: list[Crate]) -> None:
        """Return when the other side has answered and it is settled here. Raises PublishUnknown."""
        now = asyncio.get_running_loop().time()
        self._pace.spend(len(crates), sum(len(crate.delivery.body) for crate in crates), now)
        results = await self._remote.publish_whole(
            [crate.item(self._home, now) for crate in crates],
            [crate.delivery.body for crate in crates],
            deadline_s=self._settings.answer_s,
        )
        self._problem = ""
        await self._settle(crates, results)

    async def _wait(self) -> None:
        """Return when there is something to send."""
        rested_at = self._transit.rested_at()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(rested_at):
                await self._news.wait()

    async def _fit_to_go(self, crates: list[Crate]) -> list[Crate]:
        """Return those that the other side can take; the others become dead letters here."""
        most = self._remote.max_body
        giants = {crate for crate in crates if most is not None and len(crate.delivery.body) > most}
        if not giants:
            return crates
        await self._end_unsent(list(giants), wire.REJECT, f"{self._settings.to} takes bodies of at most {most} bytes.")
        return [crate for crate in crates if crate not in giants]

    async def _settle(self, crates: list[Crate], results: wire.Results) -> None:
        """End here what has an answer; the busy ones stay in hand, and their address rests."""
        troubles = {trouble.index: trouble for trouble in results.troubles}
        outcomes: list[wire.Outcome] = []
        ended: set[Crate] = set()
        now = asyncio.get_running_loop().time()
        for index, (crate, status) in enumerate(zip(crates, results.statuses, strict=True)):
            delivery = crate.delivery
            if status == wire.BUSY:
                trouble = troubles[index]
                self._problem = trouble.fault.message
                self._transit.rest(delivery.address, now + max(SHORTEST_REST_S, trouble.retry_after_s))
                continue
            ended.add(crate)
            if status in (wire.STORED, wire.DUPLICATE):
                outcomes.append(wire.Outcome(delivery.token, wire.DONE))
                self._sent += 1
                self._bytes += len(delivery.body)
                self._duplicates += status == wire.DUPLICATE
            else:
                fault = troubles[index].fault
                reason = f"{self._settings.to} refused it: {fault.message} ({fault.code})"
                outcomes.append(wire.Outcome(delivery.token, wire.REJECT, reason=reason[:2000]))
                self._refused += 1
        self._transit.remove(ended)
        await self._end(outcomes)

    async def _end_unsent(self, crates: list[Crate], outcome: int, reason: str = "") -> None:
        self._transit.remove(set(crates))
        for start in range(0, len(crates), wire.MAX_ITEMS):
            part = crates[start : start + wire.MAX_ITEMS]
            await self._end([wire.Outcome(crate.delivery.token, outcome, reason=reason) for crate in part])

    async def _end(self, outcomes: list[wire.Outcome]) -> None:
        """Tell the local broker; what it does not hear comes again, and is a duplicate on the other side."""
        if outcomes:
            try:
                await self._local.settle_whole(outcomes, deadline_s=SETTLED_WITHIN_S)
            except SettleUnknown as error:
                log.warning("%s: %s", self._settings.to, error.message)


async def main() -> None:
    """Bridge until cancelled."""
    context = load()
    settings = context.parse_settings(BridgeSettings)
    own = connection_of(context)
    home = Home(context.lan, context.cluster)
    routes: list[Route] = []

    async def status(_request: Request) -> RoutesStatus:
        return RoutesStatus(
            place=home.place,
            public_key=context.public_key,
            next_key=context.next_key,
            routes=tuple([await route.status() for route in routes]),
        )

    async with contextlib.AsyncExitStack() as stack:
        local = await stack.enter_async_context(QueueClient(own))
        for each in settings.routes:
            connection = Connection(each.endpoint, each.server_key, own.keys, own.lan, own.cluster, each.next_key)
            remote = await stack.enter_async_context(QueueClient(connection))
            routes.append(Route(each, home, local, remote))
        notify.ready(f"{len(routes)} routes")
        async with asyncio.TaskGroup() as group:
            for route in routes:
                group.create_task(route.run())
            group.create_task(_serve(local, status))


async def _serve(local: QueueClient, status: Handler) -> None:
    """Answer `bridge.routes` from now on."""
    while True:
        try:
            await local.serve("bridge.routes", status)
            return
        except ApplianceError as error:
            log.warning("bridge.routes is not served yet: %s", error)
        await asyncio.sleep(AGAIN_S)


if __name__ == "__main__":
    sys.exit(notify.run(main))

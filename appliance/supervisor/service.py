"""The supervisor's process: keeps the machine as it should be, and says how it is."""

import asyncio
import logging
import os
import time
from collections import deque
from functools import partial
from pathlib import Path

import msgspec

from appliance import notify
from appliance.component import RUN, STATE
from appliance.config import parse
from appliance.contracts.letters import CALLS
from appliance.contracts.machine import (
    Applied,
    ConfigText,
    Confirmation,
    Firewall,
    MachineStatus,
    Pairing,
    Plan,
    PlanStep,
    Repair,
    Reverted,
    Rotate,
    Rotated,
)
from appliance.contracts.order import Health
from appliance.contracts.user import Done, PairingAttempt
from appliance.errors import ApplianceError, Problem, Unavailable
from appliance.host.box import Box
from appliance.queue.client import Connection
from appliance.queue.keys import Keys
from appliance.supervisor import status
from appliance.supervisor.boot import BootRecord
from appliance.supervisor.control import Control
from appliance.supervisor.cutoff import ways_touched
from appliance.supervisor.desired import SUPERVISOR, Desired, broker
from appliance.supervisor.events import LOOK_EVERY_S, SEPARATOR, Pace, Wake, look_again_s
from appliance.supervisor.gauges import Gauges
from appliance.supervisor.guestcalls import GuestCalls
from appliance.supervisor.hotline import Hotline
from appliance.supervisor.inforce import ConfigFile
from appliance.supervisor.intent import Intent
from appliance.supervisor.keys import KeyStore
from appliance.supervisor.pairing import PairingDesk
from appliance.supervisor.reconcile import Reconciler, Round
from appliance.supervisor.trial import Probation
from appliance.supervisor.unit_text import MARK, run_directory
from appliance.topology import Machine, Observed

log = logging.getLogger(__name__)

MOVE_EVERY_S = 1.0
"""How often it is looked whether the next server may move."""
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 15.0
MOST_REPAIRS = 10
STARTED = "start"
APPLIED = "a configuration was applied"
ROTATED = "a next key is taken into use"
UNDONE = "a change was undone"
NOT_CONFIRMED = "a change was not confirmed in time"
MOVES = "servers move from one form to the other"
INTENDED = {STARTED, APPLIED, ROTATED, UNDONE, NOT_CONFIRMED, MOVES}
"""Causes of rounds that somebody asked for; steps for any other are repairs."""

OUTSIDE_URL = "alpha-ren.outside-url"
PAIRED = Path(STATE) / "paired"


class Supervisor:
    """All of it, around one Box."""

    def __init__(self) -> None:
        self._wake = Wake()
        self._profile = status.profile()
        self._who = status.identity(self._profile)
        self._probation = Probation(Path(STATE), ConfigFile(Path(STATE)))
        self._probation.take_over()
        self._box = Box(self._wake, unit_mark=MARK)
        self._hotline = Hotline(self._status, self._pair, self._heard, self._confirm, self._revert)
        self._intent = Intent(self._box, KeyStore(Path(STATE) / "keys"), self._profile, self._hotline.answers)
        self._reconciler = Reconciler(self._box)
        self._gauges = Gauges()
        self._boot = BootRecord(Path(RUN) / "boot.json", time.monotonic())
        self._desk = PairingDesk(opened=not PAIRED.exists())
        self._turn = asyncio.Lock()
        self._in_force = self._probation.read()
        self._desired: Desired | None = None
        self._observed = Observed()
        self._health: status.Heard | None = None
        self._problem: Problem | None = None
        self._said = ""
        self._looked_at = time.monotonic()
        self._look_again_s = LOOK_EVERY_S
        self._repairs: deque[Repair] = deque(maxlen=MOST_REPAIRS)

    async def run(self) -> None:
        """Work until cancelled."""
        await asyncio.to_thread(Path(RUN).mkdir, parents=True, exist_ok=True)
        control = Control(
            {
                "status": self._call_status,
                "plan": self._call_plan,
                "firewall": self._call_firewall,
                "apply": self._call_apply,
                "confirm": self._call_confirm,
                "revert": self._call_revert,
                "pairing.open": self._call_pairing_open,
                **{name: partial(self._hotline.relay, name) for name in CALLS},
                "queue.rotate-key": self._call_queue_rotate_key,
                **GuestCalls(self._wanted, lambda: self._intent.guests.reasons).calls,
            }
        )
        async with self._box, asyncio.TaskGroup() as group:
            self._boot.begin(await self._box.units.timestamps())
            group.create_task(control.serve())
            group.create_task(self._box.units.lost())
            group.create_task(self._probation.watch(partial(self._wake, NOT_CONFIRMED)))
            group.create_task(self._gauges.follow(self._wanted, self._wake))
            group.create_task(self._keep(group))

    async def _keep(self, group: asyncio.TaskGroup) -> None:
        """Round after round: at once when something happens, every now and then when nothing does."""
        cause, retry_s, pace = STARTED, FIRST_RETRY_S, Pace(time.monotonic())
        line: tuple[Connection, asyncio.Task[None]] | None = None
        while True:
            began = time.monotonic()
            await self._round(cause)
            worked_s = time.monotonic() - began
            if self._desired is not None:
                line = await self._connected(group, line, self._desired)
            self._tell_systemd()
            await asyncio.sleep(pace.rest_s(time.monotonic(), worked_s))
            retry_s = min(LONGEST_RETRY_S, retry_s * 2) if self._problem else FIRST_RETRY_S
            cause = await self._wake.wait(retry_s if self._problem else self._look_again_s)

    def _tell_systemd(self) -> None:
        """Once ready always ready; said again only in other words, since systemd passes every word on to everybody."""
        said = f"STATUS={self._problem.message if self._problem else 'the machine is as it should be'}"
        if said != self._said:
            notify.notify("READY=1", said)
            self._said = said

    async def _round(self, cause: str) -> int:
        """One round; return how many steps it took. What goes wrong is kept as the problem that holds."""
        async with self._turn:
            try:
                steps = await self._look_and_take(cause)
            except ApplianceError as error:
                return self._stuck(error.problem)
            except OSError as error:
                return self._stuck(_not_read(f"The machine cannot be looked at: {error}."))
            except Exception as error:
                # A fault in one component's declaration must not take away the way to find out about it.
                log.exception("a round failed")
                return self._stuck(_not_read(f"The supervisor has a fault: {type(error).__name__}: {error}."))
        if self._status().ready:
            self._boot.ready()
        self._hotline.changed()
        if self._intent.guests.moving:
            # Nobody tells when the next one's time has come.
            asyncio.get_running_loop().call_later(MOVE_EVERY_S, self._wake, MOVES)
        return steps

    async def _look_and_take(self, cause: str) -> int:
        everywhere = time.monotonic() - self._looked_at >= self._look_again_s
        if everywhere:
            self._look_everywhere()
        began = time.process_time()
        in_force = await asyncio.to_thread(self._probation.read)
        desired = await self._intent.form(in_force.config)
        self._in_force, self._desired = in_force, desired
        outcome = await self._reconciler.round(desired.machine, cause)
        if everywhere and not outcome.steps:
            self._look_again_s = look_again_s(time.process_time() - began)
        units = await self._box.units.observe() if outcome.steps else outcome.observed.units
        self._observed = msgspec.structs.replace(outcome.observed, units=units)
        self._problem = outcome.problems[0] if outcome.problems else None
        if outcome.steps and INTENDED.isdisjoint(cause.split(SEPARATOR)):
            self._repaired(cause, outcome)
        return len(outcome.steps)

    def _look_everywhere(self) -> None:
        """Let the next look be at everything: some changes nobody tells of, and an event may have been lost."""
        self._box.look_everywhere()
        self._looked_at = time.monotonic()

    def _repaired(self, cause: str, outcome: Round) -> None:
        repair = Repair(
            at=time.time(),
            cause=cause,
            steps=tuple(str(step) for step in outcome.steps),
            took_s=round(time.monotonic() - self._wake.began, 3),
            failed=tuple(problem.message for problem in outcome.problems),
        )
        log.info("%d steps in %.3f s, because of: %s", len(repair.steps), repair.took_s, cause)
        self._repairs.append(repair)
        self._hotline.repaired(repair)

    def _stuck(self, problem: Problem) -> int:
        log.error("%s", problem.message)
        self._problem = problem
        return 0

    async def _connected(
        self, group: asyncio.TaskGroup, line: tuple[Connection, asyncio.Task[None]] | None, desired: Desired
    ) -> tuple[Connection, asyncio.Task[None]]:
        """Return the connection to the queue, a new one where its place or its keys changed."""
        wanted = _connection(desired, self._intent.keys)
        if line is not None:
            if line[0] == wanted:
                return line
            line[1].cancel()
            await asyncio.wait([line[1]])
        return wanted, group.create_task(self._hotline.run(wanted))

    def _status(self, pairing: Pairing | None = None) -> MachineStatus:
        rows = status.units(self._desired.machine, self._observed.units) if self._desired else ()
        return status.machine_status(
            who=self._who,
            in_force=self._in_force,
            rows=rows,
            health=self._health,
            uplink=self._intent.uplink,
            outside_url=_outside_url(),
            queue_key=self._intent.queue_key,
            boot=self._boot.phases,
            step=self._reconciler.step,
            problem=self._problem or self._probation.undone,
            ended=self._probation.ended,
            pending=self._probation.pending,
            gauges=self._gauges,
            notes=(*self._intent.notes, *self._reconciler.notes),
            nics=self._intent.nics,
            warnings=self._intent.warnings,
            repairs=tuple(self._repairs),
            pairing=pairing,
        )

    def _wanted(self) -> Machine | None:
        return self._desired.machine if self._desired else None

    def _heard(self, health: Health) -> None:
        before, self._health = self._health, status.Heard(health=health, at=time.monotonic())
        if before is None or before.health.ok != health.ok:
            log.info("the machine's own journey %s", "works" if health.ok else f"fails: {health.detail}")
            self._wake("its health changed")

    def _pair(self, attempt: PairingAttempt) -> None:
        self._desk.attempt(attempt)
        PAIRED.touch()
        log.info("the pairing code was used")

    async def _call_status(self, _body: bytes) -> MachineStatus:
        return self._status(self._desk.current())

    async def _call_plan(self, _body: bytes) -> Plan:
        async with self._turn:
            self._look_everywhere()
            in_force = await asyncio.to_thread(self._probation.read)
            steps, _ = await self._reconciler.look((await self._intent.form(in_force.config)).machine)
        return Plan(
            steps=tuple(PlanStep(action=step.action, kind=step.kind, name=step.name, why=step.why) for step in steps)
        )

    async def _call_firewall(self, _body: bytes) -> Firewall:
        if self._desired is None:
            raise Unavailable("The machine has not been laid out yet.")
        return Firewall(flows=self._desired.machine.flows)

    async def _call_apply(self, body: bytes) -> Applied:
        asked = msgspec.json.decode(body, type=ConfigText)
        async with self._turn:
            digest = await self._put(asked)
        # Who will be cut off by it hears of it first, if he is quick.
        self._hotline.changed()
        steps = await self._round(APPLIED)
        await self._probation.count_from_now(asked.confirm_within_s)
        self._hotline.changed()
        return Applied(digest=digest, steps=steps, pending=self._probation.pending)

    async def _put(self, asked: ConfigText) -> str:
        self._probation.refuse_another()
        config = parse(asked.text)
        before = self._desired or await self._intent.form(self._in_force.config)
        after = await self._intent.form(config)
        return await self._probation.put(
            asked.text, ways_touched(before.machine, after.machine), asked.confirm_within_s
        )

    async def _call_confirm(self, body: bytes) -> Done:
        await self._confirm(msgspec.json.decode(body, type=Confirmation))
        return Done()

    async def _confirm(self, confirmation: Confirmation) -> None:
        await self._probation.confirm(confirmation.digest, confirmation.who)
        self._hotline.changed()

    async def _revert(self, confirmation: Confirmation) -> None:
        """Undo the change; the round that takes it back comes after the answer, which may need the way it opened."""
        await self._probation.revert(confirmation.digest, confirmation.who)
        self._hotline.changed()
        self._wake(UNDONE)

    async def _call_revert(self, body: bytes) -> Reverted:
        asked = msgspec.json.decode(body, type=Confirmation)
        await self._probation.revert(asked.digest, asked.who)
        return Reverted(steps=await self._round(UNDONE))

    async def _call_pairing_open(self, _body: bytes) -> Pairing:
        return self._desk.open()

    async def _call_queue_rotate_key(self, body: bytes) -> Rotated:
        asked = msgspec.json.decode(body, type=Rotate)
        async with self._turn:
            await self._intent.rotate_key(asked.instance)
        return Rotated(steps=await self._round(ROTATED))


def _not_read(message: str) -> Problem:
    return Problem(
        code="machine-not-read", message=message, hint="It is tried again; `alpha-ren logs supervisor` has more."
    )


def _connection(desired: Desired, keys: dict[str, Keys]) -> Connection:
    site = desired.site
    queue = broker(site.placed).instance.name
    return Connection(
        f"ipc://{run_directory(queue)}/ipc/broker.sock",
        keys[queue].public,
        keys[SUPERVISOR],
        site.config.machine.lan,
        site.config.machine.cluster,
    )


def _outside_url() -> str:
    """Return the address that the outside uses, where whoever started this machine told it (a systemd credential)."""
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / OUTSIDE_URL
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


async def _main() -> None:
    await Supervisor().run()


def main() -> int:
    """Run the supervisor; return the exit status."""
    return notify.run(_main)

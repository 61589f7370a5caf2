"""A change on trial at the console, over HTTP: with a real broker and the supervisor's own end of the line."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.arwadm.spec import RIGHTS
from appliance.config import Config
from appliance.contracts.access import Access
from appliance.contracts.machine import Confirmation, MachineStatus
from appliance.contracts.user import Done
from appliance.errors import ApplianceError
from appliance.queue.client import RemoteError
from appliance.supervisor.desired import SUPERVISOR, SUPERVISOR_RIGHTS, Facts, desired
from appliance.supervisor.hotline import Hotline
from appliance.supervisor.inforce import ConfigFile
from appliance.supervisor.registry import specs
from appliance.supervisor.trial import Probation
from tests.unit.arwadm.test_pages import SOON_S, Site, site
from tests.unit.queue.bridges import ANYTHING
from tests.unit.queue.running import Broker, running
from tests.unit.supervisor.fakes import Keys

AFTER = '[machine]\nname = "after"\n'
TOUCHED = ("nic ardpx/uplink changes (addresses)",)
WITHIN_S = 60.0


class Supervisor:
    """A supervisor of which there is nothing but the change on trial, and the line to the queue."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.file = ConfigFile(folder)
        self.probation = Probation(folder, self.file, boot_id=lambda: "boot", monotonic=lambda: self.now)
        self.line = Hotline(self._status, lambda _attempt: None, lambda _health: None, self._confirm, self._revert)

    async def put(self) -> str:
        """Put a change on trial; return its digest."""
        digest = await self.probation.put(AFTER, TOUCHED, WITHIN_S)
        self.line.changed()
        return digest

    def _status(self) -> MachineStatus:
        return MachineStatus(
            at=0.0, name="box", version="1", profile="qemu", ready=True, units=(),
            pending=self.probation.pending, ended=self.probation.ended,
        )  # fmt: skip

    async def _confirm(self, confirmation: Confirmation) -> None:
        await self.probation.confirm(confirmation.digest, confirmation.who)
        self.line.changed()

    async def _revert(self, confirmation: Confirmation) -> None:
        await self.probation.revert(confirmation.digest, confirmation.who)
        self.line.changed()


@asynccontextmanager
async def on_the_queue(supervisor: Supervisor, broker: Broker) -> AsyncIterator[None]:
    """Have it there once it has been heard."""
    task = asyncio.create_task(supervisor.line.run(broker.connection(SUPERVISOR)))
    async with asyncio.timeout(SOON_S), broker.client() as queue:
        await anext(queue.events("machine"))
        while True:
            try:
                await queue.call("supervisor.revert", Confirmation(), Done)
            except RemoteError as error:
                if error.problem.code == "nothing-pending":
                    break
            await asyncio.sleep(0.02)
    yield
    task.cancel()
    await asyncio.wait([task])


def with_console(folder: Path, work: Callable[[Site, Supervisor], Awaitable[None]]) -> None:
    """Run `work` on a console and a supervisor with a broker of their own."""

    async def main(broker: Broker) -> None:
        supervisor = Supervisor(folder)
        async with on_the_queue(supervisor, broker), site(broker) as place:
            await place.fetch("/letters")
            await work(place, supervisor)

    with running() as broker:
        broker.grant("tester", ANYTHING)
        broker.grant("arwadm-1", RIGHTS)
        broker.grant(SUPERVISOR, SUPERVISOR_RIGHTS)
        asyncio.run(main(broker))


async def refused(place: Site, act: str, digest: str) -> tuple[int, str]:
    """Status and code of an act that is refused with a sentence and a hint."""
    answer = await place.fetch(f"/api/trial/{act}", body={"digest": digest})
    problem = msgspec.json.decode(answer.body)
    assert problem["message"].endswith(".")
    assert problem["hint"].endswith(".")
    return answer.code, problem["code"]


def on_trial(picture: Any) -> bool:
    return bool(picture["machine"] and picture["machine"]["pending"])


def is_over(picture: Any) -> bool:
    return bool(picture["machine"] and picture["machine"]["ended"])


def test_a_change_on_trial_is_in_the_picture_until_it_is_kept_by_who_is_logged_in(tmp_path: Path) -> None:
    async def work(place: Site, supervisor: Supervisor) -> None:
        digest = await supervisor.put()
        shown = (await place.await_picture(on_trial))["machine"]["pending"]
        assert shown == {"digest": digest, "touched": list(TOUCHED), "seconds_left": WITHIN_S}
        await place.json("/api/trial/keep", {"digest": shown["digest"]})
        machine = (await place.await_picture(is_over))["machine"]
        assert machine["pending"] is None
        assert machine["ended"] == {"digest": digest, "kept": True, "said": "The last change was kept by admin."}
        assert supervisor.file.digest() == digest

    with_console(tmp_path, work)


def test_one_that_is_undone_at_the_console_says_who_did_it(tmp_path: Path) -> None:
    async def work(place: Site, supervisor: Supervisor) -> None:
        digest = await supervisor.put()
        await place.json("/api/trial/undo", {"digest": digest})
        machine = (await place.await_picture(is_over))["machine"]
        assert (machine["pending"], machine["ended"]["kept"]) == (None, False)
        assert machine["ended"]["said"] == "The last change was undone, because admin said so."
        assert supervisor.file.digest() == ""

    with_console(tmp_path, work)


def test_what_cannot_be_kept_or_undone_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async def work(place: Site, supervisor: Supervisor) -> None:
        for act in ("keep", "undo"):
            assert await refused(place, act, "0" * 64) == (404, "nothing-pending")
        digest = await supervisor.put()
        for act in ("keep", "undo"):
            assert await refused(place, act, "0" * 64) == (409, "other-change")
            assert await refused(place, act, "") == (400, "invalid-input")
        supervisor.now += WITHIN_S
        assert await refused(place, "keep", digest) == (409, "change-undone")
        await supervisor.probation.revert(digest, "root")
        for act in ("keep", "undo"):
            assert await refused(place, act, digest) == (409, "change-undone")

    with_console(tmp_path, work)


def test_without_a_session_or_the_pages_own_token_nothing_is_kept(tmp_path: Path) -> None:
    async def work(place: Site, supervisor: Supervisor) -> None:
        digest = await supervisor.put()
        for act in ("keep", "undo"):
            body = {"digest": digest}
            assert (await place.fetch(f"/api/trial/{act}", body=body, logged_in=False)).code == 401
            assert (await place.fetch(f"/api/trial/{act}", body=body, xsrf=False)).code == 403
        assert supervisor.probation.pending is not None

    with_console(tmp_path, work)


def test_every_page_with_a_session_has_the_banner_and_no_other(tmp_path: Path) -> None:
    async def work(place: Site, _supervisor: Supervisor) -> None:
        for path in ("/", "/letters"):
            page = (await place.fetch(path, Accept="text/html")).body
            assert b'id="trial"' in page, path
            assert b"static/shared/trial.js" in page, path
            assert b'<body data-xsrf="' in page, path
        assert b"trial" not in (await place.fetch("/setup", logged_in=False, Accept="text/html")).body

    with_console(tmp_path, work)


def everybody() -> tuple[Access, ...]:
    """Everybody whom the broker of a box knows."""
    config = Config()
    return desired(config, specs(config), Facts(public_keys=Keys())).site.access


@pytest.mark.parametrize("call", ["supervisor.confirm", "supervisor.revert"])
def test_of_all_components_the_broker_lets_the_console_alone_decide_on_a_change(tmp_path: Path, call: str) -> None:
    async def main(broker: Broker) -> None:
        supervisor = Supervisor(tmp_path)
        async with on_the_queue(supervisor, broker):
            digest = await supervisor.put()
            heard = {}
            for access in everybody():
                async with broker.client(access.name) as queue:
                    with pytest.raises(ApplianceError) as said:
                        await queue.call(call, Confirmation(digest="0" * 64), Done, deadline_s=SOON_S)
                heard[access.name] = said.value.problem.code
            assert {name for name, code in heard.items() if code == "other-change"} == {"arwadm-1", SUPERVISOR}
            assert {code for code in heard.values() if code != "other-change"} == {"not-permitted"}
            assert len(heard) > 5
            assert supervisor.probation.pending is not None
            assert supervisor.probation.pending.digest == digest

    with running() as broker:
        for access in everybody():
            broker.grant(access.name, access.rights)
        asyncio.run(main(broker))

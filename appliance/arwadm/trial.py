"""What a person says at the console about the change that is on trial.

    POST /api/trial/keep    keeps it; body: the digest of the change that was seen
    POST /api/trial/undo    undoes it before its time

What is on trial, and what became of the last one, is in the picture (`machine.pending`, `machine.ended`).
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from appliance.contracts.machine import Confirmation
from appliance.contracts.user import Done
from appliance.web.page import ConsolePage
from appliance.web.server import Route

CALLS = {"keep": "supervisor.confirm", "undo": "supervisor.revert"}


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The change that a page showed, by its digest: what it did not show is neither kept nor undone."""

    digest: Annotated[str, Meta(min_length=1)]


class TrialPage(ConsolePage):
    """/api/trial/keep and undo."""

    async def post(self, act: str) -> None:
        """Pass it to the supervisor in the name of who is logged in."""
        confirmation = Confirmation(digest=self.parse_body(Seen).digest, who=self.user)
        self.send_json(await self.queue.call(CALLS[act], confirmation, Done))


ROUTES: tuple[Route, ...] = ((r"api/trial/(keep|undo)", TrialPage),)

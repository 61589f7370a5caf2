"""The page of dead letters and its API.

    GET  /api/letters           the oldest dead letters, without their bodies; `?address=` for those of one address
    GET  /api/letters/NUMBER    one message with its history, and its body as far as it is shown
    POST /api/letters/requeue   lets dead letters wait again; body: which, as for the call `queue.requeue`
    POST /api/letters/purge     drops them for good

Who asks for a change does so slice by slice: the answer says how many it were, and where to go on.
"""

import msgspec

from appliance.contracts.letters import EVERY_ADDRESS, Browse, Changed, Choice, Letter, Line, Peek, Purge, Requeue
from appliance.contracts.traffic import Message, Messages
from appliance.queue.preview import readable
from appliance.web.page import ConsolePage
from appliance.web.server import Route

SHOWN = 200
SHOWN_BYTES = 16 * 2**10

CHANGES: dict[str, type[Choice]] = {"requeue": Requeue, "purge": Purge}


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A message as the page shows it; `text` is its body, or the beginning of it."""

    message: Message
    kind: str
    text: str
    history: tuple[Line, ...]


class LettersPage(ConsolePage):
    """GET /letters: the page; its script talks to the API."""

    def get(self) -> None:
        """Show the page."""
        self.render("letters.html")


class ListPage(ConsolePage):
    """/api/letters."""

    async def get(self) -> None:
        """Answer with the oldest ones."""
        address = self.get_query_argument("address", "")
        found: list[Message] = []
        for pattern in (address,) if address else EVERY_ADDRESS:
            query = Browse(address=pattern, limit=SHOWN)
            found += (await self.queue.call("queue.browse", query, Messages)).messages
        self.send_json(Messages(messages=tuple(sorted(found, key=lambda message: message.seq)[:SHOWN])))


class LetterPage(ConsolePage):
    """/api/letters/NUMBER."""

    async def get(self, number: str) -> None:
        """Answer with the message."""
        query = Peek(seq=int(number), limit=SHOWN_BYTES, who=self.user)
        letter = await self.queue.call("queue.peek", query, Letter)
        self.send_json(
            Shown(message=letter.message, kind=letter.kind, text=readable(letter), history=letter.history)
        )


class ChangePage(ConsolePage):
    """/api/letters/requeue and purge."""

    async def post(self, change: str) -> None:
        """Do it in the name of who is logged in."""
        choice = msgspec.structs.replace(self.parse_body(CHANGES[change]), who=self.user)
        self.send_json(await self.queue.call(f"queue.{change}", choice, Changed))


ROUTES: tuple[Route, ...] = (
    ("letters", LettersPage),
    ("api/letters", ListPage),
    (r"api/letters/([0-9]{1,18})", LetterPage),
    (r"api/letters/(requeue|purge)", ChangePage),
)

"""A notice is handed over until Postfix says 250; only a final no makes it a dead letter."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiosmtpd.smtp import SMTP
from aiosmtpd.smtp import Envelope as Received

from appliance.armail import service
from appliance.armail.mail import compose
from appliance.armail.service import MailRefused, hand_over
from tests.unit.armail.test_mail import ENVELOPE, NOTICE

MAIL = compose(NOTICE, ENVELOPE, "id", "box")


class Postfix:
    """Answers DATA with each of `answers` in turn, then with 250."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.received: list[Received] = []

    async def handle_DATA(self, _server: SMTP, _session: object, envelope: Received) -> str:  # noqa: N802 - aiosmtpd's name
        self.received.append(envelope)
        return self._answers.pop(0) if self._answers else "250 queued"


@asynccontextmanager
async def listening(postfix: Postfix, port: int = 0) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(postfix, hostname="postfix"), "127.0.0.1", port)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def handed_over(postfix: Postfix) -> None:
    async with listening(postfix) as port, asyncio.timeout(30):
        await hand_over(MAIL, ENVELOPE, port)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "FIRST_WAIT_S", 0.01)


def test_a_mail_goes_to_every_recipient() -> None:
    postfix = Postfix()
    asyncio.run(handed_over(postfix))
    [received] = postfix.received
    assert (received.mail_from, received.rcpt_tos) == ("box@example.org", ["ops@example.org", "night@example.org"])


def test_what_postfix_cannot_take_now_is_offered_again() -> None:
    postfix = Postfix("452 no space", "451 later")
    asyncio.run(handed_over(postfix))
    assert len(postfix.received) == 3


def test_a_final_no_is_said_at_once() -> None:
    postfix = Postfix("552 too much")
    with pytest.raises(MailRefused, match="too much"):
        asyncio.run(handed_over(postfix))
    assert len(postfix.received) == 1


def test_a_postfix_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    postfix = Postfix()

    async def story() -> None:
        async with listening(Postfix()) as port:
            pass
        refused = asyncio.Event()
        monkeypatch.setattr(service.log, "warning", lambda *_: refused.set())
        handing = asyncio.create_task(hand_over(MAIL, ENVELOPE, port))
        async with asyncio.timeout(30):
            await refused.wait()
            async with listening(postfix, port):
                await handing

    asyncio.run(story())
    assert len(postfix.received) == 1

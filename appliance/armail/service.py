"""The process that hands notices from the queue to Postfix; one is done once Postfix has it on disk."""

import asyncio
import logging
import smtplib
import sys
from email.message import EmailMessage

from appliance import notify
from appliance.armail.mail import compose
from appliance.armail.spec import NOT_CONFIGURED, Envelope, Settings
from appliance.contracts.notice import Notice
from appliance.contracts.service import ServiceContext, load
from appliance.errors import ApplianceError, InvalidInput
from appliance.queue.client import Delivery, LeaseLost, SettleUnknown, connect

log = logging.getLogger(__name__)

AT_ONCE = 4
SMTP_TIMEOUT_S = 30.0
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0


class MailRefused(ApplianceError):
    """Postfix will not take this mail, now or later."""

    code = "mail-refused"
    hint = "The notice is kept as a dead letter; `alpha-ren logs armail` shows what Postfix said."


async def main() -> None:
    """Take notices until cancelled; where mail is not configured, say so and leave them in the queue."""
    context = load()
    settings = context.parse_settings(Settings)
    if settings.envelope is None:
        log.warning("%s", NOT_CONFIGURED)
        notify.ready(NOT_CONFIGURED)
        await asyncio.Event().wait()
    else:
        await _take_notices(context, settings.envelope, settings.port)


async def _take_notices(context: ServiceContext, envelope: Envelope, port: int) -> None:
    async with connect(context) as queue, asyncio.TaskGroup() as tasks:
        notify.ready(f"Notices go to {', '.join(envelope.recipients)}.")
        async for delivery in queue.consume("notice.mail", credit=AT_ONCE):
            tasks.create_task(_deliver(delivery, envelope, context.machine, port))


async def _deliver(delivery: Delivery, envelope: Envelope, machine: str, port: int) -> None:
    """Settle one notice. While Postfix is away it stays ours and no attempt is used up, since mail must not vanish."""
    try:
        try:
            mail = compose(delivery.decode(Notice), envelope, delivery.id, machine)
            await hand_over(mail, envelope, port)
        except (InvalidInput, MailRefused) as error:
            log.error("the notice %s cannot be sent: %s", delivery.id, error)
            await delivery.reject(str(error))
        else:
            await delivery.done()
    except (LeaseLost, SettleUnknown) as error:
        # It comes again, perhaps as a second mail with the same Message-ID.
        log.warning("the notice %s is not settled: %s", delivery.id, error)


async def hand_over(mail: EmailMessage, envelope: Envelope, port: int) -> None:
    """Return once Postfix has answered 250 to the whole mail; raise MailRefused where it answers 5xx."""
    wait_s = FIRST_WAIT_S
    while True:
        try:
            await asyncio.to_thread(_submit, mail, envelope, port)
        except (smtplib.SMTPException, OSError) as error:
            if _is_permanent(error):
                raise MailRefused(f"Postfix refuses the mail: {error}.") from error
            log.warning("Postfix does not take mail yet: %s", error)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        else:
            return


def _submit(mail: EmailMessage, envelope: Envelope, port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=SMTP_TIMEOUT_S) as postfix:
        refused = postfix.send_message(mail, envelope.sender, envelope.recipients)
    if refused:
        raise smtplib.SMTPRecipientsRefused(refused)


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, smtplib.SMTPResponseException):
        return 500 <= error.smtp_code < 600
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return any(500 <= code < 600 for code, _ in error.recipients.values())
    return isinstance(error, smtplib.SMTPNotSupportedError)


if __name__ == "__main__":
    sys.exit(notify.run(main))

"""From a notice to the mail that Postfix gets (RFC 5322)."""

import hashlib
import re
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from appliance.armail.spec import Envelope
from appliance.contracts.notice import Notice
from appliance.errors import InvalidInput

MOST_SUBJECT = 200


def compose(notice: Notice, envelope: Envelope, work_id: str, machine: str) -> EmailMessage:
    """Return the mail for a notice; the same work item always gives the same Message-ID, so that a repeat can be told.

    Raises InvalidInput where the notice's time is none.
    """
    mail = EmailMessage()
    mail["From"] = envelope.sender
    mail["To"] = ", ".join(envelope.recipients)
    mail["Subject"] = f"[{machine}] {_one_line(notice.subject)}"[:MOST_SUBJECT]
    mail["Date"] = _date(notice.at)
    mail["Message-ID"] = message_id(work_id, envelope.host)
    # RFC 3834: nobody's auto-reply should answer a machine.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(notice.body)
    return mail


def message_id(work_id: str, host: str) -> str:
    """Return the Message-ID of a work item: its id, or the id's digest where it does not fit a mail header."""
    fits = re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", work_id)
    return f"<{work_id if fits else hashlib.sha256(work_id.encode()).hexdigest()}@{host}>"


def _date(at: float) -> str:
    try:
        return format_datetime(datetime.fromtimestamp(at, UTC))
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput(f"The notice's time {at} is not a time: {error}.") from error


def _one_line(text: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())

"""A notice becomes one mail that a person can read and a machine can recognise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.armail.mail import compose, message_id
from appliance.armail.spec import Envelope
from appliance.contracts.notice import Notice
from appliance.errors import InvalidInput

ENVELOPE = Envelope(sender="box@example.org", recipients=("ops@example.org", "night@example.org"), host="box.example")
NOTICE = Notice(subject="Dead letter at flow.orders.0", body="Attempts: 8 of 8\n", at=1_700_000_000.0)


def test_the_mail_says_who_whom_what_and_when() -> None:
    mail = compose(NOTICE, ENVELOPE, "dead-letter-7-1", "box")
    assert mail["From"] == "box@example.org"
    assert mail["To"] == "ops@example.org, night@example.org"
    assert mail["Subject"] == "[box] Dead letter at flow.orders.0"
    assert mail["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content() == "Attempts: 8 of 8\n"


def test_a_repeat_has_the_same_message_id_and_another_notice_another() -> None:
    assert compose(NOTICE, ENVELOPE, "a", "box")["Message-ID"] == compose(NOTICE, ENVELOPE, "a", "box")["Message-ID"]
    assert message_id("a", "h") == "<a@h>" != message_id("b", "h")


@given(work_id=st.text(max_size=300))
def test_any_id_gives_a_message_id_that_is_one(work_id: str) -> None:
    local, _, host = message_id(work_id, "h.example").strip("<>").partition("@")
    assert host == "h.example"
    assert local
    assert all(each.isascii() and (each.isalnum() or each in "._-") for each in local)


@given(subject=st.text(max_size=400), body=st.text(max_size=400))
def test_no_subject_adds_a_header(subject: str, body: str) -> None:
    mail = compose(Notice(subject=subject, body=body, at=0.0), ENVELOPE, "id", "box")
    assert mail.keys() == compose(NOTICE, ENVELOPE, "id", "box").keys()
    assert len(str(mail["Subject"])) <= 200


@pytest.mark.parametrize("at", [float("nan"), float("inf"), 1e20, -1e20])
def test_a_time_that_is_none_is_refused(at: float) -> None:
    with pytest.raises(InvalidInput, match="is not a time"):
        compose(Notice(subject="s", body="b", at=at), ENVELOPE, "id", "box")

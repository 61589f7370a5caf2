"""Notices: what the box has to tell a person by mail."""

import msgspec


class Notice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Work `notice.mail`: subject and body of a mail to the configured recipients; `at` is Unix time."""

    subject: str
    body: str
    at: float

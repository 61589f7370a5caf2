"""What every part of the appliance says when something is refused or fails.

An error has a stable ``code`` (kebab-case, for programs), one sentence (for a person) and a ``hint`` (what to do next).
The CLI, the API, the console and the local screen all show the same three.
"""

from typing import ClassVar

import msgspec

NOT_DECODED = (msgspec.DecodeError, UnicodeDecodeError)
"""What msgspec raises for bytes that are not what they should be; of text that is not UTF-8, the second."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it travels between processes; `status` is the HTTP status that fits it."""

    code: str
    message: str
    hint: str = ""
    status: int = 500


class ApplianceError(Exception):
    """Base of every error that a person may get to see.

    A subclass fixes `code`, and where it fits `hint` and the HTTP `status`; the sentence comes with the occasion.
    """

    code: ClassVar[str] = "internal-error"
    hint: ClassVar[str] = ""
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = self.hint if hint is None else hint

    @property
    def problem(self) -> Problem:
        """The same error as data, to be sent to another process."""
        return Problem(code=self.code, message=self.message, hint=self.advice, status=self.status)

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]" + (f" {self.advice}" if self.advice else "")


class InvalidInput(ApplianceError):
    """Something from outside does not fit its schema; nothing was changed."""

    code = "invalid-input"
    hint = "Correct the named field and send it again."
    status = 400


class NotFound(ApplianceError):
    """What was asked for does not exist."""

    code = "not-found"
    status = 404


class Refused(ApplianceError):
    """The caller may not do this."""

    code = "refused"
    status = 403


class Unavailable(ApplianceError):
    """A part that is needed does not answer; trying again later makes sense."""

    code = "unavailable"
    hint = "Try again in a few seconds; `alpha-ren status` shows which component is down."
    status = 503


class DeadlinePassed(Unavailable):
    """A wait ended at its deadline."""

    code = "deadline-passed"


class Relayed(ApplianceError):
    """An error that another process reported; it keeps that process's code, sentence and hint."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message, hint=problem.hint)
        self._problem = problem

    @property
    def problem(self) -> Problem:
        """The error as the other process said it."""
        return self._problem

    def __str__(self) -> str:
        return f"{self.message} [{self._problem.code}]" + (f" {self.advice}" if self.advice else "")

"""How a build says that it cannot go on: a stable code, one sentence, and what to do about it.

The same three as `appliance.errors`, which needs packages that are not installed yet when this is first used.
"""

import sys
from collections.abc import Callable


class Failure(Exception):
    """Ends the build; `code` is kebab-case and stable, `hint` says what a person can do."""

    def __init__(self, code: str, sentence: str, hint: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.sentence} [{self.code}] {self.hint}"


def exit_status(program: str, body: Callable[[], None]) -> int:
    """Runs a script's body: 0, or 1 after its failure was said on standard error, or 130 when it was interrupted."""
    try:
        body()
    except Failure as failure:
        print(f"{program}: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: Interrupted; what was finished is kept.", file=sys.stderr)
        return 130
    return 0

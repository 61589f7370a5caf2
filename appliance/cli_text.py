"""How the command `alpha-ren` asks and speaks: tables, errors in two lines, JSON, a question before what is final."""

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from appliance.errors import ApplianceError, InvalidInput, Problem
from appliance.supervisor.ask import ask

T = TypeVar("T")

Command = Callable[[argparse.Namespace], int]
"""Does what the options say, and returns the exit status."""

DONE, FAILED, REFUSED, AWAY = 0, 1, 2, 3
"""Exit statuses."""


class NotConfirmed(InvalidInput):
    """Something that cannot be undone was not agreed to."""

    code = "not-confirmed"
    hint = "Nothing was changed. Say `--yes` to agree beforehand."


def ask_supervisor(
    options: argparse.Namespace, call: str, kind: type[T], body: msgspec.Struct | None = None, deadline_s: float = 10.0
) -> T:
    """Return the supervisor's reply at the control socket that the options name."""
    return asyncio.run(ask(call, kind, body, endpoint=options.socket, deadline_s=deadline_s))


def confirm(options: argparse.Namespace, what: str) -> None:
    """Return when a person agrees, at the terminal or by `--yes`; raise NotConfirmed otherwise."""
    if options.yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise NotConfirmed(f"{what} There is no terminal to ask at.")
    print(f"{what} Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfirmed(f"{what} That was not agreed to.")


def error_text(problem: Problem) -> str:
    """Return an error as the command shows it: code and sentence, and the hint on a line of its own."""
    return f"{problem.code}: {harmless(problem.message)}" + (f"\n  {harmless(problem.hint)}" if problem.hint else "")


def is_away(error: ApplianceError) -> bool:
    """Return whether a part that is needed did not answer, be it the supervisor or one that it asked."""
    return error.problem.status in (503, 504)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the rows below their head, in columns as wide as their widest cell."""
    lines = [head, *(tuple(map(harmless, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def harmless(text: str) -> str:
    """Return it with what a terminal would obey, or what would break a line, made visible."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_json(document: msgspec.Struct) -> None:
    """Print a document for programs."""
    print(msgspec.json.format(msgspec.json.encode(document)).decode())


def size_text(size: float) -> str:
    """Return a number of bytes for a person."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def time_text(at: float) -> str:
    """Return Unix time as the machine's own clock shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def positive(text: str) -> int:
    """Return a number from the command line, 1 to 2**63 - 1; raise ValueError, which argparse understands."""
    value = int(text)
    if not 1 <= value < 2**63:
        raise ValueError(text)
    return value


def person() -> str:
    """Return who asks, for the journal."""
    return re.sub(r"[^\w.@-]", "_", os.environ.get("SUDO_USER", "root"))[:64]

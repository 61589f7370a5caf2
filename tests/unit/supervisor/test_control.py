"""The control socket, asked by the client that the command uses."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.contracts.machine import Applied, ConfigText, Plan
from appliance.errors import InvalidInput, Relayed
from appliance.supervisor.ask import ask
from appliance.supervisor.control import Control


class _Odd(msgspec.Struct):
    text: msgspec.Raw


async def _plan(_body: bytes) -> Plan:
    return Plan()


async def _apply(body: bytes) -> Applied:
    text = msgspec.json.decode(body, type=ConfigText).text
    if not text:
        raise InvalidInput("There is nothing in it.")
    if text == "bug":
        raise ZeroDivisionError
    return Applied(digest=text, steps=0)


def served(folder: Path, work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Ask a control socket that serves two calls."""
    path = folder / "run" / "supervisor.sock"

    async def all_of_it() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            control = Control({"plan": _plan, "apply": _apply}, path)
            server = group.create_task(control.serve())
            await control.bound.wait()
            await work(f"ipc://{path}")
            assert path.stat().st_mode & 0o777 == 0o600
            server.cancel()

    asyncio.run(all_of_it())


def test_calls_are_answered(tmp_path: Path) -> None:
    async def work(endpoint: str) -> None:
        assert await ask("plan", Plan, endpoint=endpoint) == Plan()
        assert await ask("apply", Applied, ConfigText(text="x"), endpoint=endpoint) == Applied(digest="x", steps=0)

    served(tmp_path, work)


@pytest.mark.parametrize(
    ("call", "text", "code"),
    [("apply", "", "invalid-input"), ("apply", "bug", "internal-error"), ("nonsense", "x", "not-found")],
)
def test_what_goes_wrong_is_told_and_the_next_call_is_answered(tmp_path: Path, call: str, text: str, code: str) -> None:
    async def work(endpoint: str) -> None:
        with pytest.raises(Relayed) as caught:
            await ask(call, Applied, ConfigText(text=text), endpoint=endpoint)
        assert caught.value.problem.code == code
        assert await ask("plan", Plan, endpoint=endpoint) == Plan()

    served(tmp_path, work)


def test_a_body_that_is_not_valid_is_the_callers_fault(tmp_path: Path) -> None:
    async def work(endpoint: str) -> None:
        for body in (None, _Odd(text=msgspec.Raw(b"1")), _Odd(text=msgspec.Raw(b'"\xff"'))):
            with pytest.raises(Relayed) as caught:
                await ask("apply", Applied, body, endpoint=endpoint)
            assert caught.value.problem.status == 400

    served(tmp_path, work)

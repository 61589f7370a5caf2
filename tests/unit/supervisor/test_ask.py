"""Asking the supervisor: an answer, its own refusal, or at once the reason why there is none."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from appliance.contracts.machine import Applied, ConfigText, Plan, PlanStep
from appliance.errors import Problem, Relayed, Unavailable
from appliance.supervisor.ask import SupervisorAway, SupervisorSilent, ask
from tests.unit.supervisor.control_stub import ControlStub

PLAN = Plan(steps=(PlanStep(action="make", kind="namespace", name="queue"),))


def test_the_reply_comes_back_as_what_was_asked_for(tmp_path: Path) -> None:
    with ControlStub(tmp_path, lambda _call, _body: [b"ok", msgspec.json.encode(PLAN)]) as stub:
        assert asyncio.run(ask("plan", Plan, endpoint=stub.endpoint)) == PLAN
        assert stub.asked == [("plan", b"{}")]


def test_the_body_goes_with_the_call(tmp_path: Path) -> None:
    body = ConfigText(text="version = 1\n")
    reply = Applied(digest="00", steps=3)
    with ControlStub(tmp_path, lambda _call, _body: [b"ok", msgspec.json.encode(reply)]) as stub:
        assert asyncio.run(ask("apply", Applied, body, endpoint=stub.endpoint)) == reply
        assert stub.asked == [("apply", msgspec.json.encode(body))]


def test_what_the_supervisor_refuses_keeps_its_code_sentence_and_hint(tmp_path: Path) -> None:
    problem = Problem(code="invalid-config", message="No.", hint="Do otherwise.", status=400)
    with (
        ControlStub(tmp_path, lambda _call, _body: [b"error", msgspec.json.encode(problem)]) as stub,
        pytest.raises(Relayed) as caught,
    ):
        asyncio.run(ask("apply", Applied, endpoint=stub.endpoint))
    assert caught.value.problem == problem


@pytest.mark.parametrize("reply", [[b"ok", b"[]"], [b"ok"], [b"ok", b"{", b""], [b"error", b"nonsense"]])
def test_a_reply_of_another_shape_is_an_error_and_not_a_crash(tmp_path: Path, reply: list[bytes]) -> None:
    with ControlStub(tmp_path, lambda _call, _body: reply) as stub, pytest.raises(Unavailable, match="not understood"):
        asyncio.run(ask("plan", Plan, endpoint=stub.endpoint))


def test_a_supervisor_that_is_away_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(SupervisorAway):
        asyncio.run(ask("plan", Plan, endpoint=f"ipc://{tmp_path}/supervisor.sock", deadline_s=3600))


def test_a_supervisor_that_says_nothing_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    with (
        ControlStub(tmp_path, lambda _call, _body: None) as stub,
        pytest.raises(SupervisorSilent, match=r"within 0\.2 seconds"),
    ):
        asyncio.run(ask("plan", Plan, endpoint=stub.endpoint, deadline_s=0.2))

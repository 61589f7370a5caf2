"""The steps of a flow: pure functions from a message to a message."""

import jmespath
import msgspec

from appliance.contracts.flow import Filter, Map, Remove, Set, Step
from appliance.errors import NOT_DECODED, ApplianceError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class StepFailed(ApplianceError):
    """A step cannot process this message, now or ever."""

    code = "step-failed"
    hint = "Correct the flow's step or what is sent to it, then send the message again."
    status = 422


def run_step(step: Step, body: bytes) -> bytes | None:
    """Return the message after `step`, None where a filter ends it; raise StepFailed where the step cannot be done."""
    value = _decode(body)
    match step:
        case Set():
            _set(value, step)
        case Remove():
            _remove(value, step)
        case Filter():
            return body if _is_true(_search(step.where, value)) else None
        case Map():
            value = _search(step.to, value)
    return _encode(value)


def _decode(body: bytes) -> Json:
    try:
        value: Json = msgspec.json.decode(body)
    except (*NOT_DECODED, RecursionError) as error:
        raise StepFailed(f"The message is not JSON: {error}.") from error
    return value


def _encode(value: Json) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (msgspec.EncodeError, OverflowError, RecursionError, TypeError) as error:
        raise StepFailed(f"The step's result is not JSON: {error}.") from error


def _search(expression: str, value: Json) -> Json:
    try:
        result: Json = jmespath.compile(expression).search(value)
    except (jmespath.exceptions.JMESPathError, RecursionError, TypeError, ValueError) as error:
        raise StepFailed(f"The expression {expression!r} fails on this message: {error}.") from error
    return result


def _is_true(value: Json) -> bool:
    """Truth as JMESPath has it: null, false and everything empty is false, all else (zero too) is true."""
    return value is not None and value is not False and value not in ("", [], {})


def _set(value: Json, step: Set) -> None:
    *outer, last = step.path.split(".")
    here = _object(value, step.path)
    for name in outer:
        here = _object(here.setdefault(name, {}), step.path)
    here[last] = step.value


def _remove(value: Json, step: Remove) -> None:
    *outer, last = step.path.split(".")
    here = _object(value, step.path)
    for name in outer:
        if name not in here:
            return
        here = _object(here[name], step.path)
    here.pop(last, None)


def _object(value: Json, path: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise StepFailed(f"The path {path!r} does not lead through objects in this message.")
    return value

"""Flows: what an integration server does with a message, from trigger to delivery.

A flow is data. Its stages are numbered: stage *n* runs step *n*; the stage after the last step delivers. Between stages
a message is in the queue, at the work address `flow.NAME.STAGE`.
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

import jmespath
import msgspec
from msgspec import Meta

from appliance.errors import NOT_DECODED, InvalidInput

FlowName = Annotated[str, Meta(pattern=r"^[a-z0-9_]([a-z0-9_-]{0,46}[a-z0-9])?$")]
"""Lower-case letters, digits, hyphen and underscore; a leading underscore is kept for the appliance's own flows."""

FieldPath = Annotated[str, Meta(pattern=r"^[^.]+(\.[^.]+)*$", max_length=1024)]
"""Names of fields from the outside in, separated by dots."""

Expression = Annotated[str, Meta(min_length=1, max_length=4096)]
"""JMESPath (https://jmespath.org/specification.html)."""


class InvalidFlow(InvalidInput):
    """A flow does not validate; nothing was changed."""

    code = "invalid-flow"
    hint = "Correct the named field and send the flow again; unknown fields are errors."


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Webhook(_Part, frozen=True, tag_field="kind", tag="webhook"):
    """A message is what somebody POSTs to `/hooks/NAME`; a body over `max_bytes` is refused with 413.

    A message that is not delivered within `expires_s` is dropped as *expired*; None keeps it for ever.
    """

    max_bytes: Annotated[int, Meta(ge=1, le=16 * 2**20)] = 2**20
    expires_s: Annotated[float, Meta(gt=0)] | None = None


class Set(_Part, frozen=True, tag_field="kind", tag="set"):
    """Sets the field at `path` (dot-separated names) of a JSON object to `value`, making objects on the way."""

    path: FieldPath
    value: str | int | float | bool | None


class Remove(_Part, frozen=True, tag_field="kind", tag="remove"):
    """Removes the field at `path` of a JSON object; a field that is not there is no error."""

    path: FieldPath


class Filter(_Part, frozen=True, tag_field="kind", tag="filter"):
    """Lets a message pass where the expression is true in the sense of JMESPath, else ends it."""

    where: Expression


class Map(_Part, frozen=True, tag_field="kind", tag="map"):
    """Replaces the message with the result of a JMESPath expression over it."""

    to: Expression


Step = Set | Remove | Filter | Map


class Retry(_Part, frozen=True):
    """Exponential backoff with full jitter: delay n is `first_s` plus a random part of min(max_s, first_s * 2**n)."""

    attempts: Annotated[int, Meta(ge=1, le=1000)] = 12
    first_s: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    max_s: Annotated[float, Meta(gt=0, le=86400)] = 300.0


class HttpDelivery(_Part, frozen=True, tag_field="kind", tag="http"):
    """Sends the message to an HTTP server; 2xx is success, anything else is retried until `retry` is used up."""

    url: str
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    timeout_s: Annotated[float, Meta(gt=0, le=300)] = 10.0
    retry: Retry = Retry()


class Flow(_Part, frozen=True):
    """One flow. `version` is the version of this schema."""

    name: FlowName
    deliver: HttpDelivery
    trigger: Webhook = Webhook()
    steps: Annotated[tuple[Step, ...], Meta(max_length=64)] = ()
    version: Literal[1] = 1

    @property
    def stages(self) -> int:
        """How many stages a message goes through, the delivery included."""
        return len(self.steps) + 1


class Flows(_Part, frozen=True):
    """Event `flows`: every flow, at this revision of the cluster's state."""

    revision: int
    flows: tuple[Flow, ...]


class PutFlow(_Part, frozen=True):
    """Call `arclst.flow.put`: adds the flow or replaces the one of its name; `who` is the user that asked for it."""

    flow: Flow
    who: str


class DeleteFlow(_Part, frozen=True):
    """Call `arclst.flow.delete`."""

    name: str
    who: str


class FlowChanged(_Part, frozen=True):
    """Reply to both: the revision that carries the change."""

    revision: int


def parse_flow(document: bytes) -> Flow:
    """Return the flow in a JSON document; raise InvalidFlow with the field's path where it does not validate."""
    try:
        flow = msgspec.json.decode(document, type=Flow)
    except NOT_DECODED as error:
        raise InvalidFlow(f"The flow is not valid: {error}.") from error
    check_flow(flow)
    return flow


def check_flow(flow: Flow) -> None:
    """Raise InvalidFlow where a well-formed flow makes no sense: its URL, or an expression that does not compile."""
    target = urlsplit(flow.deliver.url)
    if target.scheme not in ("http", "https") or not target.hostname:
        raise InvalidFlow("The delivery's address must be an http:// or https:// URL - at `$.deliver.url`.")
    if target.username is not None or target.fragment:
        raise InvalidFlow("The delivery's address must have no user, password or fragment - at `$.deliver.url`.")
    try:
        _ = target.port
    except ValueError as error:
        raise InvalidFlow(f"The delivery's port is not valid: {error} - at `$.deliver.url`.") from error
    for number, step in enumerate(flow.steps):
        if isinstance(step, Filter):
            _check_expression(step.where, f"$.steps[{number}].where")
        elif isinstance(step, Map):
            _check_expression(step.to, f"$.steps[{number}].to")


def _check_expression(expression: str, where: str) -> None:
    try:
        jmespath.compile(expression)
    except (jmespath.exceptions.JMESPathError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise InvalidFlow(f"The expression does not compile: {reason} - at `{where}`.") from error


def stage_address(flow: str, stage: int) -> str:
    """Return the queue address at which messages wait for `stage` of `flow`."""
    return f"flow.{flow}.{stage}"


def stage_of(address: str) -> int:
    """Return the stage that a queue address made by `stage_address` is for, the full `lan/cluster/` form included."""
    return int(address.rpartition(".")[2])

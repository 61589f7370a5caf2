"""A message of a flow as it lies in the queue between two stages."""

import hashlib
import re
import uuid
from typing import Literal

import msgspec

MESSAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The message with what outlives its stages: the id it came in under, its media type, when it came (Unix time)."""

    id: str
    content_type: str
    received_at: float
    body: bytes
    version: Literal[1] = 1


def message_id(flow: str, idempotency_key: str, request_id: str) -> str:
    """Return the id of an incoming message, the same one for the same message sent again.

    A client's own key (draft-ietf-httpapi-idempotency-key-header) names it within its flow; else the id that the
    reverse proxy gave the request does, since the proxy may hand one request to two servers; else it is made up.
    """
    if idempotency_key:
        return "k" + hashlib.sha256(f"{flow}\0{idempotency_key}".encode()).hexdigest()[:40]
    return request_id if MESSAGE_ID.fullmatch(request_id) else uuid.uuid4().hex


def stage_id(envelope: Envelope, stage: int) -> str:
    """Return the queue's id for a message at `stage`: derived, so that a stage run twice is one message."""
    return f"{envelope.id}.{stage}"

"""A body as a person can read it."""

import msgspec
import pytest
from hypothesis import given, settings

from appliance.contracts.letters import BodyKind, Letter
from appliance.contracts.traffic import Message
from appliance.queue.preview import JUDGED_BYTES, JUDGED_WHOLE, kind_of, readable
from tests.unit.queue.damage import damaged


def shown(body: bytes, limit: int | None = None) -> str:
    message = Message(
        seq=1, id="1", origin="o", address="a", state="dead", attempt=1, max_attempts=1, size=len(body),
        published_at=0.0, changed_at=0.0,
    )  # fmt: skip
    return readable(Letter(message=message, kind=kind_of(body), body=body[:limit]))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "empty"),
        (b'{"total": 3}', "json"),
        (b"[1, 2]", "json"),
        ("Grüße, \u00a0Welt\n".encode(), "text"),
        (b'{"total": 3', "text"),
        (msgspec.msgpack.encode({"total": 3}), "msgpack"),
        (msgspec.msgpack.encode([b"\xff"]), "msgpack"),
        (b"\x00\x01", "binary"),
        (b"\xff\xfe", "binary"),
        (b"\x82\xa1", "binary"),
        (b"\x1b[2J", "binary"),
        ("\u009b2J".encode(), "binary"),
        (b"x" * (JUDGED_WHOLE + 1), "text"),
        (b"x" * (JUDGED_BYTES - 1) + "ä".encode() * JUDGED_WHOLE, "text"),
        (b"\x80" * (JUDGED_WHOLE + 1), "binary"),
        (b"[" * 100_000, "text"),
        (b"\x91" * 100_000, "binary"),
    ],
)
def test_what_a_body_is_is_told_by_its_bytes(body: bytes, kind: BodyKind) -> None:
    assert kind_of(body) == kind


def test_json_is_laid_out() -> None:
    assert shown(b'{"a":[1]}') == '{\n  "a": [\n    1\n  ]\n}'


def test_what_components_write_is_opened_and_the_body_inside_too() -> None:
    body = msgspec.msgpack.encode({"id": "x", "body": b'{"total":3}', "key": b"\x00\xff", "note": b"plain"})
    assert msgspec.json.decode(shown(body)) == {"id": "x", "body": {"total": 3}, "key": "00 ff", "note": "plain"}


def test_what_is_cut_off_is_shown_as_far_as_it_goes() -> None:
    assert shown(b'{"total": 3}', 6) == '{"tota …'
    assert shown("aä".encode(), 2) == "a …", "half a character is left out"
    assert shown(msgspec.msgpack.encode({"total": 3}), 2) == "000000  81 a5\n…"


def test_anything_else_is_shown_in_hexadecimal() -> None:
    assert shown(bytes(range(18))).splitlines() == [
        "000000  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
        "000010  10 11",
    ]


def nested(depth: int) -> bytes:
    """A body in a body in a body."""
    body = b"\x00"
    for _ in range(depth):
        body = msgspec.msgpack.encode([body])
    return body


@pytest.mark.parametrize(
    "body",
    [
        *(b"[" * depth + b"]" * depth for depth in (300, 900, 5000)),
        *(b"\x91" * depth + b"\xc0" for depth in (300, 500, 900, 5000)),
        *(nested(depth) for depth in (100, 400, 2000)),
        *(b"123456789012345678901234567890", b"[1e999, -1e-999]", rb'"\ud800"', rb'{"\u0000": "\u009b"}'),
        *(msgspec.msgpack.encode({2**64 - 1: -(2**63)}), b"\x81\x91\x01\x02", b"\x91\xcb\x7f\xf8" + bytes(6)),
        *(b"\x91\xd7\xff" + b"\xff" * 8, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_any_body_can_be_shown(body: bytes) -> None:
    assert shown(body)


@settings(max_examples=500)
@given(damaged(msgspec.msgpack.encode({"id": "x", "body": b'{"total":3}', "of": [1.5, None, {"a": b"\x91\x01"}]})))
def test_a_damaged_body_can_be_shown(body: bytes) -> None:
    assert shown(body) or not body


def test_numbers_are_shown_as_they_were_written() -> None:
    assert shown(b"[1.10, 123456789012345678901]").split() == ["[", "1.10,", "123456789012345678901", "]"]

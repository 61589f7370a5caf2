"""A message's body as a person can read it."""

import codecs
import re
from typing import Any

import msgspec

from appliance.contracts.letters import BodyKind, Letter

JUDGED_WHOLE = 2**20
"""A larger body is judged by its beginning, so that looking at it does not hold up the broker."""
JUDGED_BYTES = 2**16
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""No text has these, and a terminal would obey them."""


def kind_of(body: bytes) -> BodyKind:
    """Return what a body is: JSON, a MessagePack map or array (as components write), text, or none of these."""
    if not body:
        return "empty"
    whole = len(body) <= JUDGED_WHOLE
    text = _text(body if whole else body[:JUDGED_BYTES], whole=whole)
    if text is not None:
        return "json" if whole and _decoded(msgspec.json.decode, body) is not None else "text"
    # In MessagePack these first bytes open a map or an array; nearly any other byte would pass for a number.
    if whole and (0x80 <= body[0] <= 0x9F or 0xDC <= body[0] <= 0xDF):
        return "msgpack" if _decoded(msgspec.msgpack.decode, body) is not None else "binary"
    return "binary"


def readable(letter: Letter) -> str:
    """Return the body for a person: laid out where it is all there, in hexadecimal where nothing better fits."""
    body, cut = letter.body, len(letter.body) < letter.message.size
    laid_out = None if cut else _laid_out(letter)
    if laid_out is not None:
        return laid_out
    if letter.kind in ("json", "text"):
        return (_text(body, whole=False) or "") + (" …" if cut else "")
    lines = [f"{at:06x}  {body[at : at + 16].hex(' ')}" for at in range(0, len(body), 16)]
    return "\n".join([*lines, "…"] if cut else lines)


def _laid_out(letter: Letter) -> str | None:
    """Return JSON, or what JSON can hold, with each thing on a line of its own; None for what cannot be laid out."""
    try:
        match letter.kind:
            case "json":
                return msgspec.json.format(letter.body).decode()
            case "msgpack":
                return msgspec.json.format(msgspec.json.encode(_opened(letter.body))).decode()
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        return None  # nested too deeply, or with numbers that are too large
    return None


def _text(data: bytes, *, whole: bool) -> str | None:
    """Return it as text, None if it is not; a character that is cut off at the end counts only where it is whole."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=whole)
    except UnicodeDecodeError:
        return None
    return None if CONTROL.search(text) else text


def _decoded(decode: Any, data: bytes) -> Any:
    try:
        return decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


def _plain(value: Any) -> Any:
    """Return it as JSON can hold it, with bodies inside of bodies opened too."""
    match value:
        case dict():
            return {str(name): _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case msgspec.msgpack.Ext():
            return bytes(value.data).hex(" ")
        case bytes():
            return _opened(value)
    return value


def _opened(data: bytes) -> Any:
    match kind_of(data):
        case "json":
            return _decoded(msgspec.json.decode, data)
        case "msgpack":
            return _plain(_decoded(msgspec.msgpack.decode, data))
        case "text" | "empty":
            return data.decode()
    return data.hex(" ")

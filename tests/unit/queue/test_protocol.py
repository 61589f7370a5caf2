"""PROTOCOL.md says what the code does: its tables are those of wire.py, its maps those of the contracts."""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from appliance.contracts.letters import CALLS
from appliance.contracts.member import Ping, Pong
from appliance.contracts.notice import Notice
from appliance.queue import wire

TEXT = (Path(wire.__file__).parent / "PROTOCOL.md").read_text(encoding="utf-8")
COMMANDS = dict(re.findall(r"^\| `([0-9a-f]{2})` \| \w+ \| `(\[.*?\])`", TEXT, re.MULTILINE))
OPTIONAL = re.compile(r" = [^\[\]]*(\[\])?$| or nil$")
PARTS: dict[str, type[msgspec.Struct]] = {"item": wire.Item, "fault": wire.Fault, "onward": wire.Onward}


def fields(array: str) -> list[str]:
    """Return what an array of the document has in it, on its own level."""
    found, depth = [""], 0
    for letter in array[1:-1]:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [each.strip() for each in found if each.strip()]


@pytest.mark.parametrize("command", [*wire.TO_BROKER, *wire.TO_CLIENT], ids=bytes.hex)
def test_each_header_has_the_fields_of_the_document(command: bytes) -> None:
    known = msgspec.structs.fields((wire.TO_BROKER | wire.TO_CLIENT)[command])
    written = fields(COMMANDS[command.hex()])
    assert len(written) == len(known)
    if command in wire.TO_BROKER:
        assert [OPTIONAL.search(text) is not None for text in written] == [not field.required for field in known]
    assert len(COMMANDS) == len(wire.TO_BROKER) + len(wire.TO_CLIENT)


@pytest.mark.parametrize("name", PARTS)
def test_each_part_has_the_fields_of_the_document_in_their_order(name: str) -> None:
    match = re.search(rf"^- \*{name}\*: (?:`nil`.*? )?`(\[.*?\])`", TEXT, re.MULTILINE)
    assert match is not None
    written = fields(match[1])
    known = msgspec.structs.fields(PARTS[name])
    assert [field.partition(" = ")[0] for field in written] == [field.name for field in known]
    if name != "onward":
        assert [" = " not in field for field in written] == [field.required for field in known]


def structs(kinds: Iterable[object]) -> set[type[msgspec.Struct]]:
    """Return the Structs and all that they have inside."""
    found: set[type[msgspec.Struct]] = set()
    for kind in kinds:
        info = msgspec.inspect.type_info(kind)
        inner = [field.type for field in info.fields] if isinstance(info, msgspec.inspect.StructType) else []
        if isinstance(info, msgspec.inspect.StructType):
            found.add(info.cls)
        for each in inner:
            item = each.item_type if isinstance(each, msgspec.inspect.VarTupleType) else each
            if isinstance(item, msgspec.inspect.StructType):
                found |= structs([item.cls])
    return found


BODIES = structs([kind for name, pair in CALLS.items() if name.startswith("queue.") for kind in pair if kind])


@pytest.mark.parametrize("kind", sorted({*BODIES, Ping, Pong, Notice}, key=repr))
def test_each_field_of_what_the_broker_is_asked_is_in_the_document(kind: type[msgspec.Struct]) -> None:
    assert len(BODIES) > 10
    missing = [field.name for field in msgspec.structs.fields(kind) if f"`{field.name}`" not in TEXT]
    assert missing == []

"""Coloured text: a line is a tuple of spans, a span is a style and its text."""

from typing import Literal

Style = Literal[
    "title", "title-dim", "label", "value", "dim", "rule", "address", "code",
    "good", "busy", "bad", "qr", "bar", "bar-key", "panel", "panel-title", "panel-key", "panel-selected",
]  # fmt: skip
Span = tuple[Style, str]
Line = tuple[Span, ...]


def of(style: Style, text: str) -> Line:
    """Return the text in one style, without what no console can show or what would move its cursor."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return ((style, shown.encode("cp437", "replace").decode("cp437")),)


def plain(line: Line) -> str:
    """Return the line's text alone."""
    return "".join(text for _, text in line)


def clip(line: Line, width: int) -> Line:
    """Return at most the first `width` characters, the last of them a `>` where something was cut off."""
    if len(plain(line)) <= width:
        return line
    clipped: list[Span] = []
    room = width - 1
    for style, text in line:
        clipped.append((style, text[: max(0, room)]))
        room -= len(text)
    return (*clipped, ("dim", ">"))


def fill(line: Line, width: int, style: Style = "value") -> Line:
    """Return the line, blank up to `width`."""
    return (*line, (style, " " * (width - len(plain(line)))))

"""What the local screen shows on request: power menu and confirmation, laid over the picture; log; QR code."""

from firstboot.span import Line, Span, Style, clip, fill, of, plain
from firstboot.view import MENU, Confirm, Log, Menu, View

MENU_WIDTH = 46
HALVES = {
    (True, True): "\N{FULL BLOCK}",
    (True, False): "\N{UPPER HALF BLOCK}",
    (False, True): "\N{LOWER HALF BLOCK}",
    (False, False): " ",
}
"""A character for the dark and light of two squares, one above the other."""


def lay_over(lines: list[Line], view: View, width: int) -> list[Line]:
    """Return the lines with the view's menu or question, if there is one, in the middle."""
    match view.panel:
        case Menu(selected):
            box = _menu(selected)
        case Confirm(power):
            box = _confirm(power, view.status.name if view.status else "this machine")
        case _:
            return lines
    top = max(0, (len(lines) - len(box)) // 2)
    left = max(0, (width - len(plain(box[0]))) // 2)
    laid = list(lines)
    for row, line in enumerate(box, start=top):
        if row < len(laid):
            laid[row] = clip(_splice(laid[row], left, line), width)
    return laid


def _splice(under: Line, left: int, over: Line) -> Line:
    right = left + len(plain(over))
    return (*_cut(under, 0, left), *over, *_cut(under, right, len(plain(under))))


def _cut(line: Line, start: int, end: int) -> Line:
    spans: list[Span] = []
    at = 0
    for style, text in line:
        part = text[max(0, start - at) : max(0, end - at)]
        if part:
            spans.append((style, part))
        at += len(text)
    return tuple(spans)


def _framed(title: str, body: list[Line], width: int) -> list[Line]:
    inside = width - 2
    bar = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
    side: Line = (("panel", "\N{BOX DRAWINGS LIGHT VERTICAL}"),)
    head: Line = (
        ("panel", f"\N{BOX DRAWINGS LIGHT DOWN AND RIGHT}{bar} "),
        ("panel-title", title),
        ("panel", f" {bar * (inside - len(title) - 3)}\N{BOX DRAWINGS LIGHT DOWN AND LEFT}"),
    )
    foot: Line = (
        ("panel", f"\N{BOX DRAWINGS LIGHT UP AND RIGHT}{bar * inside}\N{BOX DRAWINGS LIGHT UP AND LEFT}"),
    )
    return [head, *((*side, *fill(clip(line, inside), inside, "panel"), *side) for line in body), foot]


def _menu(selected: int) -> list[Line]:
    body: list[Line] = [()]
    for index, (label, _) in enumerate(MENU):
        style: Style = "panel-selected" if index == selected else "panel"
        body.append((("panel", "  "), (style, f" {'>' if index == selected else ' '} {label}".ljust(MENU_WIDTH - 6))))
    return _framed("Power", [*body, (), _hints(("Up/Down", "choose"), ("Enter", "go on"), ("Esc", "back"))], MENU_WIDTH)


def _confirm(power: str, name: str) -> list[Line]:
    question = f"Restart {name}?" if power == "restart" else f"Power off {name}?"
    body: list[Line] = [
        (),
        of("panel-title", f"  {question}"),
        (),
        of("panel", "  What was accepted and not delivered yet"),
        of("panel", "  is kept and delivered afterwards."),
        (),
        _hints(("Y", "yes"), ("N", "no")),
    ]
    return _framed("Power", body, MENU_WIDTH)


def log_lines(log: Log, room: int) -> list[Line]:
    """Return exactly `room` lines with the end of the log."""
    if not log.lines:
        note = "The journal is empty." if log.read else "Reading the journal."
        return _padded([of("dim", f"   {note}")], room)
    shown = log.lines[-room:] if room else ()
    return _padded([of("value", f" {entry}") for entry in shown], room)


def qr_lines(url: str, width: int, room: int) -> list[Line]:
    """Return exactly `room` lines with `url` as a QR code (ISO/IEC 18004), two rows of it to a line, and in words."""
    # Imported here because only this panel needs it.
    import segno

    if not url:
        return _padded([of("dim", "   There is no URL yet.")], room)
    rows = [list(row) for row in segno.make(url, error="l", micro=False, boost_error=False).matrix_iter(border=2)]
    rows += [[False] * len(rows[0])] * (len(rows) % 2)
    if len(rows) // 2 > room or len(rows[0]) + 3 > width:
        note = of("dim", "   This terminal is too small for the QR code.")
        return _padded([note, (), of("address", f"   {url}")], room)
    lines: list[Line] = []
    for top, bottom in zip(rows[::2], rows[1::2], strict=True):
        halves = "".join(HALVES[bool(upper), bool(lower)] for upper, lower in zip(top, bottom, strict=True))
        lines.append((("value", "   "), ("qr", halves)))
    beside = len(lines) // 2
    lines[beside] = (*lines[beside], *of("address", f"   {url}"))
    return _padded(lines, room)


def _padded(lines: list[Line], room: int) -> list[Line]:
    return [*lines, *([()] * (room - len(lines)))][: max(0, room)]


def _hints(*keys: tuple[str, str]) -> Line:
    line: Line = (("panel", "  "),)
    for key, meaning in keys:
        line = (*line, ("panel-key", key), ("panel", f" {meaning}   "))
    return line

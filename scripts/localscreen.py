"""Draws the local screen as SVG: `alpha-ren status --json | python -m scripts.localscreen > local-screen.svg`."""

import sys
from xml.sax.saxutils import escape

import msgspec

from appliance.contracts.machine import MachineStatus
from firstboot.layout import HEIGHT, WIDTH, compose
from firstboot.screen import PALETTE
from firstboot.span import Line
from firstboot.view import View

CELL_W, CELL_H, EDGE = 9.0, 20.0, 16.0

COLOURS = {
    "default": "#0d1117",
    "black": "#0d1117",
    "dark blue": "#1f3a6b",
    "light gray": "#b3bac4",
    "dark gray": "#6e7681",
    "white": "#f0f3f6",
    "light green": "#56d364",
    "yellow": "#e3b341",
    "light red": "#ff7b72",
    "light cyan": "#76e3ea",
}


def draw(lines: list[Line]) -> str:
    """Return the lines as an SVG document."""
    width, height = WIDTH * CELL_W + 2 * EDGE, HEIGHT * CELL_H + 2 * EDGE
    font = 'font-family="DejaVu Sans Mono,Menlo,Consolas,monospace" font-size="15"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" {font}>',
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{COLOURS["default"]}"/>',
    ]
    for row, line in enumerate(lines):
        parts += _row(line, EDGE + row * CELL_H)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(line: Line, top: float) -> list[str]:
    rectangles, texts, column = [], [], 0
    for style, text in line:
        front, back = PALETTE[style]
        left, wide = EDGE + column * CELL_W, len(text) * CELL_W
        if back != "default":
            rectangles.append(
                f'<rect x="{left:g}" y="{top:g}" width="{wide:g}" height="{CELL_H:g}" fill="{COLOURS[back]}"/>'
            )
        if text.strip():
            start = len(text) - len(text.lstrip())
            shown = text.strip()
            # The length is given so that columns stay columns in whatever font the reader has.
            texts.append(
                f'<text x="{left + start * CELL_W:g}" y="{top + 15:g}" fill="{COLOURS[front]}" '
                f'textLength="{len(shown) * CELL_W:g}" xml:space="preserve">{escape(shown)}</text>'
            )
        column += len(text)
    return rectangles + texts


if __name__ == "__main__":
    status = msgspec.json.decode(sys.stdin.buffer.read(), type=MachineStatus)
    sys.stdout.write(draw(compose(View(status=status, heard_at=status.at))))

"""This terminal, lent to the appliance's local console."""

import asyncio
import contextlib
import os
import termios
from collections.abc import AsyncIterator, Callable
from typing import Any

from scripts.virtual.serial import SerialLine

ESCAPE = b"\x1d"
ESCAPE_NAME = "Ctrl-]"

# Main screen, plain attributes, cursor on, no mouse reports: a full-screen program may leave other than that behind.
_RESTORE = b"\x1b[?1049l\x1b[0m\x1b[?25h\x1b[?1000l\x1b[?1006l\r\n"


@contextlib.asynccontextmanager
async def attached(line: SerialLine, leave: Callable[[], None]) -> AsyncIterator[None]:
    """Connect the process's terminal with `line`; `leave` is called at Ctrl-].

    Every other key goes to the box, but Ctrl-C, which stays the signal that ends a program.
    """
    terminal = os.open(os.ttyname(0), os.O_RDWR | os.O_NOCTTY)
    before = termios.tcgetattr(terminal)
    loop = asyncio.get_running_loop()
    # Descriptors of its own: making the shared one non-blocking would change it for the shell as well.
    inlet = os.fdopen(os.dup(terminal), "rb", buffering=0)
    outlet = os.fdopen(terminal, "wb", buffering=0)
    try:
        termios.tcsetattr(outlet, termios.TCSADRAIN, _raw_with_signals(before))
        source, _ = await loop.connect_read_pipe(lambda: _Keys(line, leave), inlet)
        screen, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, outlet)
        screen.write(line.since(0))
        try:
            with line.listening(screen.write):
                yield
        finally:
            screen.write(_RESTORE)
            source.close()
            screen.close()
    finally:
        # Through standard input, since both descriptors above may be closed by now.
        termios.tcsetattr(0, termios.TCSADRAIN, before)


class _Keys(asyncio.Protocol):
    """What is typed, on its way to the box."""

    def __init__(self, line: SerialLine, leave: Callable[[], None]) -> None:
        self._line = line
        self._leave = leave

    def data_received(self, data: bytes) -> None:
        before, escape, _ = data.partition(ESCAPE)
        if before:
            self._line.write(before)
        if escape:
            self._leave()


def _raw_with_signals(attributes: list[Any]) -> list[Any]:
    """Terminal attributes as `cfmakeraw` sets them (termios(3)), with ISIG left on for Ctrl-C alone."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = attributes
    iflag &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON | termios.INLCR)
    oflag &= ~termios.OPOST
    cflag = (cflag & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    lflag = (lflag & ~(termios.ECHO | termios.ICANON | termios.IEXTEN)) | termios.ISIG
    disabled = bytes([os.fpathconf(0, "PC_VDISABLE")])
    keys = list(characters)
    for name in (termios.VQUIT, termios.VSUSP):
        keys[name] = disabled
    keys[termios.VMIN], keys[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, keys]

"""The far end of a terminal: what a program paints, and the keys that a person types."""

import os
import re
import select
import time

DEADLINE_S = 30.0
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>78])|[\x00-\x08\x0e\x0f]")


def text_of(painted: str) -> str:
    """Return what was painted without the escape sequences that say where and in which colour (ECMA-48)."""
    return ESCAPES.sub("", painted)


class Serial:
    """The other end of the terminal: reads what is painted, types keys."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._open = True

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read_until(self, text: str) -> str:
        """Return what was painted since the last call until `text` was among it; rows come from the top down."""
        until = time.monotonic() + DEADLINE_S
        painted = ""
        while text not in text_of(painted):
            if not select.select([self._master], [], [], max(0.0, until - time.monotonic()))[0]:
                raise AssertionError(f"{text!r} was not painted, but {ESCAPES.sub('', painted)!r}")
            painted += os.read(self._master, 65536).decode(errors="replace")
        return text_of(painted)

    def hang_up(self) -> None:
        """Close this end, as when the cable is pulled on a line with carrier detection."""
        if self._open:
            os.close(self._master)
        self._open = False

    def read_now(self) -> str:
        """Return what has been painted by now, escapes and all."""
        painted = ""
        while select.select([self._master], [], [], 0)[0]:
            try:
                painted += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # as Linux says that the other end is closed
                break
        return painted

"""The local screen on tty1 and the serial port: `python3 -m firstboot.screen` on the terminal that is its input.

It asks the supervisor once a second and paints only the rows that changed, since a serial line is slow; any key paints
all of it anew, for whoever plugs a terminal in later. It goes on for ever, whatever becomes of the supervisor.
"""

import asyncio
import contextlib
import platform
import signal
import sys
import time
from collections.abc import Hashable

import urwid
from urwid.display import raw

from appliance.contracts.machine import CONTROL_ENDPOINT, Confirmation, MachineStatus, Pairing
from appliance.contracts.user import Done
from appliance.errors import ApplianceError, Unavailable
from appliance.supervisor.ask import ask
from firstboot.layout import HEIGHT, WIDTH, compose
from firstboot.span import Line, Style
from firstboot.view import Action, View, answered, heard, log_read, press, unheard

ASK_EVERY_S = 1.0
COMMAND_DEADLINE_S = 15.0
LOG_LINES = 100

PALETTE: dict[Style, tuple[str, str]] = {
    "title": ("white", "dark blue"),
    "title-dim": ("light gray", "dark blue"),
    "label": ("light gray", "default"),
    "value": ("white", "default"),
    "dim": ("dark gray", "default"),
    "rule": ("dark gray", "default"),
    "address": ("light cyan", "default"),
    "code": ("yellow", "default"),
    "good": ("light green", "default"),
    "busy": ("yellow", "default"),
    "bad": ("light red", "default"),
    "qr": ("black", "light gray"),
    "bar": ("light gray", "dark blue"),
    "bar-key": ("white", "dark blue"),
    "panel": ("light gray", "dark blue"),
    "panel-title": ("white", "dark blue"),
    "panel-key": ("yellow", "dark blue"),
    "panel-selected": ("black", "light gray"),
}

COMMANDS: dict[Action, tuple[str, ...]] = {
    "restart": ("systemctl", "reboot"),
    "power-off": ("systemctl", "poweroff"),
    "read-log": ("journalctl", "--quiet", "--no-pager", "--no-hostname", f"--lines={LOG_LINES}"),
}


class CommandFailed(Unavailable):
    """A command of the machine that a key stands for did not work."""

    code = "command-failed"
    hint = "The log (key L) may say why."


class Terminal(raw.Screen):
    """A terminal that may not know its size: serial lines say 0 by 0."""

    def get_cols_rows(self) -> tuple[int, int]:
        """Return columns and rows, 80 by 24 where the terminal does not say."""
        columns, rows = super().get_cols_rows()
        if columns <= 0 or rows <= 0:
            columns, rows = WIDTH, HEIGHT
        self.maxrow = rows
        return columns, rows

    def _is_real_terminal(self) -> bool:
        """Ask the terminal nothing: an answer that comes late over a serial line would arrive as typed keys."""
        return False


class Picture(urwid.Widget):
    """A box widget that shows a view."""

    _sizing = frozenset([urwid.BOX])
    _selectable = True

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view
        self._size = (WIDTH, HEIGHT)
        self._lines: list[Line] = []

    def show(self, view: View) -> bool:
        """Show this view from now on; return whether that changes anything a person sees."""
        self.view = view
        lines = compose(view, *self._size)
        if lines == self._lines:
            return False
        self._invalidate()
        return True

    def keypress(self, size: tuple[int, int], key: str) -> str | None:  # type: ignore[override]  # box widgets only
        """Leave every key to the screen."""
        return key

    def render(self, size: tuple[int, int], focus: bool = False) -> urwid.TextCanvas:  # type: ignore[override]
        """Return the view as a canvas of the given columns and rows."""
        self._size = size
        self._lines = compose(self.view, *size)
        texts = ["".join(text for _, text in line).encode() for line in self._lines]
        return urwid.TextCanvas(texts, [_attributes(line) for line in self._lines], maxcol=size[0])


def _attributes(line: Line) -> list[tuple[Hashable, int]]:
    return [(style, len(text.encode())) for style, text in line if text]


class LocalScreen:
    """The screen with its tasks; `run` ends when it is cancelled."""

    def __init__(self, terminal: Terminal, endpoint: str, version: str) -> None:
        self._endpoint = endpoint
        self._terminal = terminal
        self._picture = Picture(View(version=version))
        self._actions: asyncio.Queue[Action] = asyncio.Queue()
        # Interrupting or suspending the screen is nothing that a person at an appliance could want.
        terminal.tty_signal_keys("undefined", "undefined", "undefined", "undefined", "undefined")
        # Bright colours by their own codes: where a terminal only makes bold text bolder, bold black is black on black.
        terminal.set_terminal_properties(colors=16, bright_is_bold=False)
        terminal.register_palette([(style, *colours) for style, colours in PALETTE.items()])
        self._loop = urwid.MainLoop(
            self._picture,
            screen=terminal,
            handle_mouse=False,
            unhandled_input=self._on_key,
            event_loop=urwid.AsyncioEventLoop(loop=asyncio.get_running_loop()),
        )

    async def run(self) -> None:
        """Show the machine until cancelled, and leave the terminal as it was."""
        with self._loop.start():
            self._loop.draw_screen()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                tasks.create_task(self._act())

    def _on_key(self, key: str | tuple[str, int, int, int]) -> bool:
        if isinstance(key, str):
            view, action = press(self._picture.view, key)
            self._show(view)
            if action == "repaint":
                self._terminal.clear()
                self._loop.draw_screen()
            elif action is not None:
                self._actions.put_nowait(action)
        return True

    def _show(self, view: View) -> None:
        if self._picture.show(view):
            self._loop.draw_screen()

    async def _follow(self) -> None:
        while True:
            try:
                status = await ask("status", MachineStatus, endpoint=self._endpoint)
            except ApplianceError as error:
                self._show(unheard(self._picture.view, error.problem))
            else:
                self._show(heard(self._picture.view, status, time.time()))
            await asyncio.sleep(ASK_EVERY_S)

    async def _act(self) -> None:
        while True:
            action = await self._actions.get()
            try:
                await self._do(action)
                problem = None
            except ApplianceError as error:
                problem = error.problem
            self._show(answered(self._picture.view, problem))

    async def _do(self, action: Action) -> None:
        match action:
            case "open-pairing":
                await ask("pairing.open", Pairing, endpoint=self._endpoint)
                await self._ask_now()
            case "keep-change":
                pending = self._picture.view.pending
                seen = Confirmation(digest=pending.digest if pending else "", who="local console")
                await ask("confirm", Done, seen, endpoint=self._endpoint)
                await self._ask_now()
            case "read-log":
                output = await run_command(COMMANDS[action])
                self._show(log_read(self._picture.view, tuple(output.splitlines())))
            case _:
                await run_command(COMMANDS[action])

    async def _ask_now(self) -> None:
        status = await ask("status", MachineStatus, endpoint=self._endpoint)
        self._show(heard(self._picture.view, status, time.time()))


async def run_command(command: tuple[str, ...]) -> str:
    """Return what the command printed; raise CommandFailed where it failed or took longer than its deadline."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise CommandFailed(f"{command[0]} cannot be started: {error}.") from error
    try:
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            output, errors = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise CommandFailed(f"`{' '.join(command)}` did not end within {COMMAND_DEADLINE_S:g} seconds.") from error
    if process.returncode:
        raise CommandFailed(f"`{' '.join(command)}` failed: {errors.decode(errors='replace').strip()}.")
    return output.decode(errors="replace")


def firmware_version() -> str:
    """Return the version that this firmware's os-release(5) names, empty where it names none."""
    try:
        return platform.freedesktop_os_release().get("IMAGE_VERSION", "")
    except OSError:
        return ""


async def show(endpoint: str = CONTROL_ENDPOINT) -> None:
    """Run the local screen on standard input and output until SIGTERM or SIGINT."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    screen = LocalScreen(Terminal(input=sys.stdin, output=sys.stdout), endpoint, firmware_version())
    with contextlib.suppress(asyncio.CancelledError):
        await screen.run()


def main() -> int:
    """Run the local screen; `--socket ENDPOINT` asks another supervisor."""
    # Terminals are UTF-8 these days, the console of the kernel too; the locale of a unit says nothing about its tty.
    urwid.set_encoding("utf-8")
    endpoint = sys.argv[2] if sys.argv[1:2] == ["--socket"] else CONTROL_ENDPOINT
    asyncio.run(show(endpoint))
    return 0


if __name__ == "__main__":
    sys.exit(main())

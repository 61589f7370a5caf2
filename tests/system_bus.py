"""What stands in for systemd where a whole one would have to run hundreds of services: `python3 -m
tests.system_bus`.

A D-Bus peer at the system bus's socket (D-Bus specification, "Message Protocol") that answers the supervisor's calls: a
unit that is started is active from then on, and runs nothing. Says `ready` on its standard output.
"""

import asyncio
import io
import os
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbus_fast import Message, MessageFlag, Variant
from dbus_fast._private.unmarshaller import Unmarshaller

from appliance.host.units import MANAGER, OBJECT, PROPERTIES, SYSTEMD, unit_of

SOCKET = Path("/run/dbus/system_bus_socket")
HEADER = struct.Struct("<BBBBIII")
JOB = f"{OBJECT}/job/1"
STARTS = ("StartUnit", "RestartUnit", "ReloadOrRestartUnit")

VALUES = {
    "SystemState": Variant("s", "running"),
    "MainPID": Variant("u", os.getpid()),
    "NRestarts": Variant("u", 0),
    "MemoryCurrent": Variant("t", 50 << 20),
    "ActiveEnterTimestamp": Variant("t", 1),
}


class Peer:
    """One connection, and the units that were started over it."""

    def __init__(self, writer: asyncio.StreamWriter, active: set[str]) -> None:
        self._writer = writer
        self._active = active
        self._serial = 0

    def answer(self, message: Message) -> None:
        """Send the reply, and the signals that follow from what was asked."""
        signature, body = self._result(message)
        if message.flags & MessageFlag.NO_REPLY_EXPECTED:
            return
        self._send(Message.new_method_return(message, signature, body))
        if message.member in (*STARTS, "StopUnit"):
            self._ran(message.body[0], message.member != "StopUnit")

    def _result(self, message: Message) -> tuple[str, list[Any]]:
        match message.member:
            case "Hello":
                return "s", [":1.1"]
            case "Get":
                return "v", [VALUES.get(message.body[1], Variant("t", 0))]
            case "ListUnitsByPatterns":
                return "a(ssssssouso)", [[_row(name) for name in message.body[1] if name in self._active]]
            case "StartUnit" | "RestartUnit" | "ReloadOrRestartUnit" | "StopUnit":
                return "o", [JOB]
            case _:
                return "", []

    def _ran(self, name: str, active: bool) -> None:
        (self._active.add if active else self._active.discard)(name)
        state = {"ActiveState": Variant("s", "active" if active else "inactive")}
        self._send(
            Message.new_signal(_path(name), PROPERTIES, "PropertiesChanged", "sa{sv}as", [f"{SYSTEMD}.Unit", state, []])
        )
        self._send(Message.new_signal(OBJECT, MANAGER, "JobRemoved", "uoss", [1, JOB, name, "done"]))

    def _send(self, message: Message) -> None:
        self._serial += 1
        message.serial = self._serial
        message.sender = SYSTEMD
        self._writer.write(bytes(message._marshall(False)))


def _row(name: str) -> list[Any]:
    return [name, "", "loaded", "active", "running", "", _path(name), 0, "", "/"]


def _path(name: str) -> str:
    escaped = re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):02x}", name)
    assert unit_of(escaped) == name
    return f"{OBJECT}/unit/{escaped}"


async def serve(socket: Path, ready: Callable[[], None]) -> None:
    """Answer until cancelled; call `ready` when it can be asked."""
    active: set[str] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _greet(reader, writer)
        peer = Peer(writer, active)
        while (message := await _message(reader)) is not None:
            peer.answer(message)
            await writer.drain()
        writer.close()

    socket.parent.mkdir(parents=True, exist_ok=True)
    async with await asyncio.start_unix_server(served, socket) as server:
        ready()
        await server.serve_forever()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let anybody in (D-Bus specification, "Authentication Protocol")."""
    while not (line := await reader.readline()).endswith(b"BEGIN\r\n"):
        if not line:
            return
        writer.write(b"OK 1234567890abcdef1234567890abcdef\r\n" if b"AUTH" in line else b"ERROR\r\n")


async def _message(reader: asyncio.StreamReader) -> Message | None:
    try:
        head = await reader.readexactly(HEADER.size)
        *_, body, _, fields = HEADER.unpack(head)
        data = head + await reader.readexactly(fields + (-fields % 8) + body)
    except asyncio.IncompleteReadError:
        return None
    return Unmarshaller(io.BytesIO(data)).unmarshall()  # type: ignore[arg-type]  # anything that reads will do


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(SOCKET, lambda: print("ready", flush=True))))

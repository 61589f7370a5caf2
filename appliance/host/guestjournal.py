"""The guest's journal on its way into the host's: lines of JSON in, datagrams to journald out.

Whoever writes the lines may be anybody who has taken over the guest, so a line is an entry or it is dropped, and only
what a reader of the journal needs is passed on. The datagrams are systemd's native journal protocol
(https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
"""

import re
import socket
from collections.abc import Iterator

import msgspec

from appliance.errors import NOT_DECODED

SOCKET = "/run/systemd/journal/socket"
MOST_BYTES = 64 * 1024
"""Of a line; a longer one is no entry of a component's, and is dropped."""
MOST_TEXT = 16 * 1024

STARTED = "39f53479d3a045ac8e11786248231fbf"
"""systemd's message id for a unit that has started (sd-messages.h: SD_MESSAGE_UNIT_STARTED)."""

KERNEL_WORTH_TELLING = 4
"""Of the kernel's own lines only warnings and worse: the others are the same at every start."""

_NAME = re.compile(r"[A-Za-z0-9@_.:-]{1,64}")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of an entry; all else in it is passed over (systemd.journal-fields(7)). Text may come as bytes."""

    message: str | list[int] | None = msgspec.field(name="MESSAGE", default=None)
    priority: str = msgspec.field(name="PRIORITY", default="6")
    identifier: str = msgspec.field(name="SYSLOG_IDENTIFIER", default="")
    message_id: str = msgspec.field(name="MESSAGE_ID", default="")
    unit: str = msgspec.field(name="UNIT", default="")
    transport: str = msgspec.field(name="_TRANSPORT", default="")
    monotonic_us: str = msgspec.field(name="__MONOTONIC_TIMESTAMP", default="0")

    @property
    def text(self) -> str:
        """The message as text."""
        if isinstance(self.message, str):
            return self.message[:MOST_TEXT]
        return bytes(byte & 255 for byte in (self.message or [])[:MOST_TEXT]).decode(errors="replace")

    @property
    def level(self) -> int:
        """Its priority, 0 to 7; one that is none is 6."""
        return int(self.priority) if self.priority in "01234567" and len(self.priority) == 1 else 6

    @property
    def at_s(self) -> float:
        """When it was written, in seconds since the guest's kernel started; 0 where it does not say."""
        return int(self.monotonic_us) / 1e6 if self.monotonic_us.isascii() and self.monotonic_us.isdigit() else 0.0


class Lines:
    """Cuts what comes into lines, and forgets lines that do not end."""

    def __init__(self) -> None:
        self._rest = b""
        self._lost = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that are complete."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            if self._lost:
                self._lost = False
            elif line and len(line) <= MOST_BYTES:
                yield line
        if len(self._rest) > MOST_BYTES:
            self._rest, self._lost = b"", True


def entry(line: bytes) -> Entry | None:
    """Return the entry in a line, None where there is none."""
    try:
        return msgspec.json.decode(line, type=Entry)
    except NOT_DECODED:
        return None


def is_told(entry: Entry) -> bool:
    """Whether an entry is for the host's journal."""
    return bool(entry.text) and (entry.transport != "kernel" or entry.level <= KERNEL_WORTH_TELLING)


def datagram(entry: Entry, guest: str) -> bytes:
    """Return the entry as journald takes it; whoever speaks in a guest is named behind it (`arsrv-1/systemd`)."""
    speaker = entry.identifier if _NAME.fullmatch(entry.identifier) else "unknown"
    text = entry.text.encode()
    head = f"PRIORITY={entry.level}\nSYSLOG_IDENTIFIER={guest}/{speaker}\nALPHA_REN_GUEST={guest}\nMESSAGE\n".encode()
    return head + len(text).to_bytes(8, "little") + text + b"\n"


class Journal:
    """The host's journal, as the guest of that name writes to it."""

    def __init__(self, guest: str, path: str = SOCKET) -> None:
        self._guest = guest
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def write(self, entry: Entry) -> bool:
        """Write an entry; return whether journald took it: while it is away or busy, the guest must not wait."""
        try:
            self._socket.sendto(datagram(entry, self._guest), self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

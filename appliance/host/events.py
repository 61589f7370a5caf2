"""What happens in the kernel, as it happens: one event for each change of links, addresses, routes, rules, sysctls.

Only where something changed is used, never what: whoever is woken looks there anew. Where events were lost, all that
the namespace holds is looked at.
"""

import asyncio
import errno
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal

import msgspec

from appliance.host.netns import Namespaces

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
# RTNLGRP_* of linux/rtnetlink.h as a mask: links, addresses and routes of IPv4 and of IPv6, and what can be set for
# both (netconf: forwarding is among it).
ROUTE_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400 | 1 << 23 | 1 << 24
# NFNLGRP_NFTABLES is group 7, as a bit mask.
NFTABLES_GROUPS = 1 << 6
HEADER = struct.Struct("=IHHII")
BUFFER = 1 << 16
MOUNTS = "/proc/self/mountinfo"

Aspect = Literal["links", "rules", "sysctls", "all"]

SUBJECTS: dict[int, tuple[Aspect, str]] = {
    16: ("links", "a link changed"),
    17: ("links", "a link went"),
    20: ("links", "an address came"),
    21: ("links", "an address went"),
    24: ("links", "a route came"),
    25: ("links", "a route went"),
    80: ("sysctls", "a setting changed"),
}
RULES: tuple[Aspect, str] = ("rules", "a rule changed")
LOST: tuple[Aspect, str] = ("all", "events were lost")


class Event(msgspec.Struct, frozen=True, order=True):
    """Something changed in `namespace`; `aspect` is what must be looked at there."""

    namespace: str
    aspect: Aspect
    what: str

    def __str__(self) -> str:
        return f"{self.what} in {self.namespace or 'the host'}"


class Stale(msgspec.Struct):
    """What must be looked at again, as names of namespaces; `everything` wherever it is."""

    everything: bool = False
    links: set[str] = msgspec.field(default_factory=set)
    rules: set[str] = msgspec.field(default_factory=set)
    sysctls: set[str] = msgspec.field(default_factory=set)

    def note(self, event: Event) -> None:
        """Take an event into account."""
        for aspect, names in (("links", self.links), ("rules", self.rules), ("sysctls", self.sysctls)):
            if event.aspect in (aspect, "all"):
                names.add(event.namespace)

    def add(self, other: "Stale") -> None:
        """Take over what another one noted."""
        self.everything |= other.everything
        self.links |= other.links
        self.rules |= other.rules
        self.sysctls |= other.sysctls


class KernelEvents:
    """Listens in every namespace. `happened` is called with each event, `moved` with a sentence when a namespace came,
    went or was replaced.
    """

    def __init__(self, namespaces: Namespaces, happened: Callable[[Event], None], moved: Callable[[str], None]) -> None:
        self._namespaces = namespaces
        self._happened = happened
        self._moved = moved
        self._sockets: dict[str, tuple[int, tuple[socket.socket, ...]]] = {}
        # The kernel tells of mounts by an exceptional condition alone (proc(5)), which an event loop does not wait for.
        self._mounts = open(MOUNTS, "rb")  # noqa: SIM115  # closed in `close`
        self._mounted = select.epoll()
        self._mounted.register(self._mounts, select.EPOLLPRI)
        asyncio.get_running_loop().add_reader(self._mounted.fileno(), self._read_mounts)

    async def follow(self) -> None:
        """Listen in every namespace that there is now, and no longer in others (a socket would keep a namespace
        alive).
        """
        inodes = await self._namespaces.call(self._namespaces.inodes)
        for name, (inode, _) in list(self._sockets.items()):
            if inodes.get(name) != inode:
                self._drop(name)
        fresh = {name: inode for name, inode in inodes.items() if name not in self._sockets}
        if fresh:
            opened = await self._namespaces.call(lambda: {name: self._open(name) for name in fresh})
            for name, listeners in opened.items():
                self._sockets[name] = (fresh[name], listeners)
                for each in listeners:
                    asyncio.get_running_loop().add_reader(each, self._read, name, each)

    def drain(self) -> None:
        """Read all that the kernel has told up to now."""
        for name, (_, listeners) in list(self._sockets.items()):
            for each in listeners:
                self._read(name, each)

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._mounted.fileno())
        self._mounted.close()
        self._mounts.close()
        for name in list(self._sockets):
            self._drop(name)

    def _open(self, name: str) -> tuple[socket.socket, ...]:
        opened = []
        with self._namespaces.inside(name):
            for family, groups in ((NETLINK_ROUTE, ROUTE_GROUPS), (NETLINK_NETFILTER, NFTABLES_GROUPS)):
                listener = socket.socket(
                    socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, family
                )
                listener.bind((0, groups))
                opened.append(listener)
        return tuple(opened)

    def _drop(self, name: str) -> None:
        for each in self._sockets.pop(name)[1]:
            asyncio.get_running_loop().remove_reader(each)
            each.close()

    def _read(self, name: str, listener: socket.socket) -> None:
        seen: set[tuple[Aspect, str]] = set()
        while True:
            try:
                data = listener.recv(BUFFER)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                seen.add(LOST)
                continue
            seen |= set(_subjects(data, listener.proto))
        for aspect, what in sorted(seen):
            self._happened(Event(name, aspect, what))

    def _read_mounts(self) -> None:
        # Waiting for it again is what makes the kernel forget that it told.
        self._mounted.poll(0)
        with suppress(OSError):
            now = self._namespaces.inodes()
            for name in sorted(now.keys() | self._sockets.keys()):
                before = self._sockets[name][0] if name in self._sockets else None
                if now.get(name) != before:
                    self._moved(f"the namespace {name or 'of the host'} {_fate(before, now.get(name))}")


def _fate(before: int | None, now: int | None) -> str:
    return "came" if before is None else "went" if now is None else "was replaced"


def _subjects(data: bytes, family: int) -> Iterator[tuple[Aspect, str]]:
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, offset)
        if family == NETLINK_NETFILTER:
            yield RULES
        elif kind in SUBJECTS:
            yield SUBJECTS[kind]
        offset += max(HEADER.size, (length + 3) & ~3)

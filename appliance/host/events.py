"""What happens in the kernel, as it happens: one sentence for each change of links, addresses, routes and rules.

Only that something changed is used, never what: whoever is woken looks anew, so a lost event costs time and nothing
else.
"""

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Iterator

from appliance.host.netns import Namespaces
from appliance.topology import HOST

log = logging.getLogger(__name__)

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
# RTMGRP_* of linux/rtnetlink.h: links, IPv4 addresses and routes, IPv6 addresses and routes.
ROUTE_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
# NFNLGRP_NFTABLES is group 7, as a bit mask.
NFTABLES_GROUPS = 1 << 6
HEADER = struct.Struct("=IHHII")
BUFFER = 1 << 16
SUBJECTS = {
    16: "a link changed",
    17: "a link went",
    20: "an address came",
    21: "an address went",
    24: "a route came",
    25: "a route went",
}


class KernelEvents:
    """Listens in every namespace. `happened` is called with a sentence."""

    def __init__(self, namespaces: Namespaces, happened: Callable[[str], None]) -> None:
        self._namespaces = namespaces
        self._happened = happened
        self._sockets: dict[str, tuple[int | None, tuple[socket.socket, ...]]] = {}

    async def follow(self, names: Iterable[str]) -> None:
        """Listen in these namespaces and the host's, and no longer in others (a socket would keep a namespace
        alive).
        """
        wanted = {HOST, *names}
        inodes = await self._namespaces.call(lambda: {name: self._namespaces.inode(name) for name in wanted})
        for name, (inode, _) in list(self._sockets.items()):
            if inodes.get(name) != inode:
                self._drop(name)
        for name, inode in inodes.items():
            if inode is not None and name not in self._sockets:
                opened = await self._namespaces.call(lambda name=name: self._open(name))  # type: ignore[misc]
                self._sockets[name] = (inode, opened)
                for each in opened:
                    asyncio.get_running_loop().add_reader(each, self._read, name, each)

    def close(self) -> None:
        """Stop listening."""
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
        seen: set[str] = set()
        while True:
            try:
                data = listener.recv(BUFFER)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                seen.add("events were lost")
                continue
            seen |= set(_subjects(data, listener.proto))
        where = name or "the host"
        for subject in sorted(seen):
            self._happened(f"{subject} in {where}")


def _subjects(data: bytes, family: int) -> Iterator[str]:
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, offset)
        if family == NETLINK_NETFILTER:
            yield "a rule changed"
        elif kind in SUBJECTS:
            yield SUBJECTS[kind]
        offset += max(HEADER.size, (length + 3) & ~3)

"""What a namespace holds, asked of the kernel in its own bytes (netlink(7), rtnetlink(7)): links, addresses, routes.

All namespaces are asked for this over and over, and messages as Python objects would take most of the time; what is
made is made through pyroute2. Everything here runs in the helper thread of `Namespaces`.
"""

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator

import msgspec

from appliance.host.netns import Namespaces

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBI")
ROUTE = struct.Struct("=BBBBBBBBI")

# linux/netlink.h: NLM_F_REQUEST | NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_ERROR, NLMSG_DONE, and the mask of an attribute's
# type.
DUMP = 0x301
INTERRUPTED = 0x10
ERROR, DONE = 2, 3
TYPE = 0x3FFF

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE = 18, 22, 26
# linux/if_link.h and linux/if_addr.h.
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS = 1, 3, 4, 5, 10, 18, 20
IFLA_PERM_ADDRESS, IFLA_PARENT_DEV_NAME, IFLA_PARENT_DEV_BUS_NAME = 54, 56, 57
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA, IFLA_BRPORT_ISOLATED = 1, 2, 5, 33
IFLA_VLAN_ID, IFLA_BOND_MODE = 1, 1
IFLA_TUN_GROUP = 2  # linux/if_link.h; without one it is left out
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_PERMANENT, IFA_F_NOPREFIXROUTE = 0x80, 0x200
# linux/rtnetlink.h.
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
# Unicast, blackhole, unreachable, prohibit: what somebody may have made, and not the kernel along with an address.
KINDS = (1, 6, 7, 8)

IFF_UP = 1
SCOPE_LINK = 253
MAIN_TABLE = 254
METRICS = {10: 1024}
"""The metric that the kernel gives to a route without one, by family."""

NOBODYS = -1

BUFFER = 1 << 18
DEADLINE_S = 10.0


class Link(msgspec.Struct, frozen=True):
    """A link as one namespace sees it; `peer` is the index of a veth's other end, in that end's own namespace.

    `peer` is also the index of what a VLAN is of; `tag` is the VLAN's number, `mode` that of a bond, `group` that of a
    TAP device, NOBODYS where it has none. A card's `own_mac` is the one it was made with, `bus` and `device` say where
    its hardware is in sysfs.
    """

    index: int
    name: str
    kind: str
    mac: str
    alias: str
    up: bool
    mtu: int
    peer: int
    master: int
    isolated: bool
    tag: int = 0
    mode: int = 0
    group: int = NOBODYS
    own_mac: str = ""
    bus: str = ""
    device: str = ""


class Way(msgspec.Struct, frozen=True):
    """A route of the main table: `destination` is `default`, `default6` or a CIDR, `gateway` empty where it has none.

    `device` is the index of its link, `protocol` says who made it (rtm_protocol), `metric` is its rank, 0 where the
    kernel chose it.
    """

    destination: str
    gateway: str
    device: int
    protocol: int
    metric: int


class Seen(msgspec.Struct, frozen=True):
    """What one namespace holds; addresses in CIDR form by the index of their link, but for link-local ones.

    `lent` are those of them that end by themselves or have no route of their own, as a DHCP client gives them.
    """

    inode: int | None
    links: dict[str, Link]
    addresses: dict[int, set[str]]
    lent: dict[int, set[str]]
    ways: tuple[Way, ...]


def see(namespaces: Namespaces, name: str) -> Seen:
    """Return what a namespace holds now."""
    inode = namespaces.inode(name)
    with namespaces.inside(name):
        asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    with asked:
        asked.settimeout(DEADLINE_S)
        links = [_link(message) for message in _dump(asked, RTM_GETLINK, LINK.size)]
        addresses: dict[int, set[str]] = {}
        lent: dict[int, set[str]] = {}
        for message in _dump(asked, RTM_GETADDR, ADDRESS.size):
            _, length, _, scope, index = ADDRESS.unpack_from(message)
            if scope != SCOPE_LINK:
                found = _attributes(message, ADDRESS.size)
                text = f"{_address(found.get(IFA_LOCAL) or found[IFA_ADDRESS])}/{length}"
                addresses.setdefault(index, set()).add(text)
                flags = int.from_bytes(found[IFA_FLAGS], sys.byteorder)
                if not flags & IFA_F_PERMANENT or flags & IFA_F_NOPREFIXROUTE:
                    lent.setdefault(index, set()).add(text)
        ways = tuple(way for message in _dump(asked, RTM_GETROUTE, ROUTE.size) for way in _way(message))
    return Seen(inode=inode, links={link.name: link for link in links}, addresses=addresses, lent=lent, ways=ways)


def _dump(asked: socket.socket, kind: int, size: int) -> list[bytes]:
    """Return all messages of one kind, without their headers; a dump that a change came between is taken again."""
    while True:
        asked.send(HEADER.pack(HEADER.size + size, kind, DUMP, 0, 0) + bytes(size))
        messages: list[bytes] = []
        whole = True
        ended = False
        while not ended:
            data = asked.recv(BUFFER)
            for code, flags, message in _messages(data):
                whole = whole and not flags & INTERRUPTED
                if code == ERROR:
                    number = -int.from_bytes(message[:4], "little", signed=True)
                    raise OSError(number or errno.EPROTO, os.strerror(number))
                ended = ended or code == DONE
                if code == kind - 2:
                    messages.append(message)
        if whole:
            return messages


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset + HEADER.size <= len(data):
        length, code, flags, _, _ = HEADER.unpack_from(data, offset)
        yield code, flags, data[offset + HEADER.size : offset + length]
        offset += max(HEADER.size, (length + 3) & ~3)


def _attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        found[kind & TYPE] = data[offset + ATTRIBUTE.size : offset + length]
        offset += max(ATTRIBUTE.size, (length + 3) & ~3)
    return found


def _link(message: bytes) -> Link:
    _, _, index, flags, _ = LINK.unpack_from(message)
    found = _attributes(message, LINK.size)
    about = _attributes(found.get(IFLA_LINKINFO, b""))
    data = _attributes(about.get(IFLA_INFO_DATA, b""))
    kind = _text(about.get(IFLA_INFO_KIND, b""))
    port = _attributes(about.get(IFLA_INFO_SLAVE_DATA, b""))
    mac = found.get(IFLA_ADDRESS, b"").hex(":")
    return Link(
        index=index,
        name=_text(found[IFLA_IFNAME]),
        kind=kind,
        mac=mac,
        alias=_text(found.get(IFLA_IFALIAS, b"")),
        up=bool(flags & IFF_UP),
        mtu=_number(found, IFLA_MTU),
        peer=_number(found, IFLA_LINK),
        master=_number(found, IFLA_MASTER),
        isolated=bool(any(port.get(IFLA_BRPORT_ISOLATED, b""))),
        tag=_number(data, IFLA_VLAN_ID) if kind == "vlan" else 0,
        mode=_number(data, IFLA_BOND_MODE) if kind == "bond" else 0,
        group=_number(data, IFLA_TUN_GROUP) if kind == "tun" and IFLA_TUN_GROUP in data else NOBODYS,
        own_mac=found[IFLA_PERM_ADDRESS].hex(":") if IFLA_PERM_ADDRESS in found else mac,
        bus=_text(found.get(IFLA_PARENT_DEV_BUS_NAME, b"")),
        device=_text(found.get(IFLA_PARENT_DEV_NAME, b"")),
    )


def _way(message: bytes) -> Iterator[Way]:
    family, length, _, _, table, protocol, _, kind, _ = ROUTE.unpack_from(message)
    found = _attributes(message, ROUTE.size)
    if kind not in KINDS or (_number(found, RTA_TABLE) or table) != MAIN_TABLE:
        return
    metric = _number(found, RTA_PRIORITY)
    yield Way(
        destination=f"{_address(found[RTA_DST])}/{length}" if length else "default" if family == 2 else "default6",
        gateway=_address(found[RTA_GATEWAY]) if RTA_GATEWAY in found else "",
        device=_number(found, RTA_OIF),
        protocol=protocol,
        metric=0 if metric == METRICS.get(family) else metric,
    )


def _number(found: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(found.get(kind, b""), "little")


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _address(data: bytes) -> str:
    return str(ipaddress.ip_address(data))

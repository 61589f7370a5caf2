"""The whole host side in one place: what is there, and doing one thing to it."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import msgspec

from appliance.host import files
from appliance.host.events import KernelEvents
from appliance.host.firewall import Firewall
from appliance.host.hardware import Card, CardEvents, told
from appliance.host.links import Sockets
from appliance.host.netlink import Netlink
from appliance.host.netns import PINNED, Namespaces
from appliance.host.observe import Observer
from appliance.host.units import Units
from appliance.host.watch import DirectoryEvents
from appliance.topology import Directory, File, Machine, Noun, Observed, Ruleset


class Box:
    """Kernel, firewall, files and units of this machine. `happened` is called with a sentence at every change.

    Without `unit_mark` there are no units (a place without systemd); `pinned` and `host` are other places for tests.
    """

    def __init__(
        self,
        happened: Callable[[str], None],
        unit_mark: str = "",
        pinned: Path = PINNED,
        host: Path = Path("/proc/self/ns/net"),
    ) -> None:
        self.namespaces = Namespaces(pinned, host)
        self._sockets = Sockets(self.namespaces)
        self._netlink = Netlink(self.namespaces, self._sockets)
        self._firewall = Firewall(self.namespaces)
        self._observer = Observer(self.namespaces, self._sockets, self._netlink, self._firewall)
        self._events = KernelEvents(self.namespaces, happened)
        self._happened = happened
        self._files = DirectoryEvents(happened)
        self._stack = AsyncExitStack()
        self._units = Units(self.namespaces, unit_mark, happened) if unit_mark else None

    async def __aenter__(self) -> Self:
        self._stack.callback(self.namespaces.close)
        self._stack.push_async_callback(self.namespaces.call, self._sockets.close)
        self._stack.callback(self._events.close)
        self._stack.callback(self._files.close)
        try:
            if self._units is not None:
                await self._stack.enter_async_context(self._units)
                self._stack.callback(CardEvents(self._happened).close)
            await self.follow((), ())
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @property
    def units(self) -> Units:
        """The units; only where there is systemd."""
        if self._units is None:
            raise RuntimeError("this box was made without units")
        return self._units

    async def observe(self, wanted: Machine) -> Observed:
        """Return what is there. `wanted` says where to look."""
        seen = await self.namespaces.call(lambda: self._observer.network(wanted))
        directories, found = await asyncio.to_thread(
            lambda: (tuple(files.directories(wanted.directories)), tuple(files.files(wanted.files)))
        )
        machine = msgspec.structs.replace(seen.machine, directories=directories, files=found)
        units = await self._units.observe() if self._units is not None else ()
        return msgspec.structs.replace(seen, machine=machine, units=units)

    async def cards(self) -> tuple[Card, ...]:
        """Return the network cards of the host namespace that nobody uses yet."""
        names = await self.namespaces.call(self._observer.spare)
        cards = await asyncio.to_thread(lambda: [told(name, mac) for name, mac in names])
        return tuple(card for card in cards if card is not None)

    async def addresses(self, namespace: str) -> tuple[str, ...]:
        """Return the addresses (CIDR form) of the cards that were moved into a namespace."""
        return await self.namespaces.call(lambda: self._observer.uplink(namespace))

    async def moved_cards(self) -> tuple[tuple[str, str], ...]:
        """Return (namespace, name on the host) of every network card that was moved."""
        return await self.namespaces.call(self._observer.nics)

    async def make(self, noun: Noun) -> None:
        """Make one noun true (units have verbs of their own); raise an ApplianceError that says why not."""
        match noun:
            case Directory():
                await asyncio.to_thread(files.make_directory, noun)
            case File():
                await files.write(noun)
            case Ruleset():
                await self.namespaces.call(lambda: self._firewall.apply(noun))
            case _:
                await self.namespaces.call(lambda: self._netlink.make(noun))

    async def remove(self, noun: Noun) -> None:
        """Remove one noun of the network."""
        await self.namespaces.call(lambda: self._netlink.remove(noun))

    async def follow(self, namespaces: Iterable[str], directories: Iterable[str]) -> None:
        """Listen for events in these namespaces and directories."""
        await self._events.follow(namespaces)
        self._files.follow(directories)

"""The whole host side in one place: what is there, and doing one thing to it."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from appliance.host import files
from appliance.host.events import Event, KernelEvents, Stale
from appliance.host.firewall import Firewall
from appliance.host.hardware import Card, CardEvents, card, settled
from appliance.host.links import Sockets
from appliance.host.netlink import Netlink
from appliance.host.netns import PINNED, Namespaces
from appliance.host.observe import Observer
from appliance.host.units import Units
from appliance.host.watch import DirectoryEvents
from appliance.topology import Directory, File, Machine, Namespace, Noun, Observed, Ruleset

T = TypeVar("T")


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
        self._events = KernelEvents(self.namespaces, self._changed, happened)
        self._happened = happened
        self._stale = Stale()
        self._contents = files.Contents()
        self._files = DirectoryEvents(happened)
        self._stack = AsyncExitStack()
        self._units = Units(self.namespaces, unit_mark, happened) if unit_mark else None

    async def __aenter__(self) -> Self:
        self._stack.callback(self.namespaces.close)
        self._stack.push_async_callback(self.namespaces.call, self._sockets.close)
        self._stack.callback(self._events.close)
        self._stack.callback(self._files.close)
        self._files.follow([str(self.namespaces.directory)])
        try:
            if self._units is not None:
                await self._stack.enter_async_context(self._units)
                self._stack.callback(CardEvents(self._happened).close)
            await self._events.follow()
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
        seen = await self._looked(lambda: self._observer.network(wanted))
        directories, found = await asyncio.to_thread(
            lambda: (tuple(files.directories(wanted.directories)), tuple(self._contents.files(wanted.files)))
        )
        machine = msgspec.structs.replace(seen.machine, directories=directories, files=found)
        units = await self._units.observe() if self._units is not None else ()
        return msgspec.structs.replace(seen, machine=machine, units=units)

    async def cards(self) -> tuple[Card, ...]:
        """Return the network cards that nobody uses yet, and those that were moved into a namespace."""
        spare, moved = await self._looked(lambda: (self._observer.spare(), self._observer.moved()))

        def told() -> tuple[Card, ...]:
            here = [card(link.name, link) for link in spare if settled(link.name)]
            return (*here, *(card(name, link, held_in) for held_in, name, link in moved))

        return await asyncio.to_thread(told)

    async def addresses(self, namespace: str) -> dict[str, tuple[str, ...]]:
        """Return the addresses (CIDR form) of the cards that were moved into a namespace, and of what they carry, by
        interface.
        """
        return await self._looked(lambda: self._observer.outer(namespace))

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
                if isinstance(noun, Namespace):
                    # Not all that is set in one is told of.
                    self._stale.sysctls.add(noun.name)
                await self.namespaces.call(lambda: self._netlink.make(noun))

    async def remove(self, noun: Noun) -> None:
        """Remove one noun of the network."""
        await self.namespaces.call(lambda: self._netlink.remove(noun))

    async def follow(self, directories: Iterable[str]) -> None:
        """Listen for events in all namespaces, and in these directories and that of the units."""
        await self._events.follow()
        own = [] if self._units is None else [str(self._units.directory)]
        self._files.follow([*directories, *own])

    def look_everywhere(self) -> None:
        """Trust nothing that was seen before: the next look is at everything."""
        self._stale.everything = True
        self._contents.forget()
        if self._units is not None:
            self._units.forget()

    def _changed(self, event: Event) -> None:
        self._stale.note(event)
        self._happened(str(event))

    async def _looked(self, work: Callable[[], T]) -> T:
        """Look again at what was touched, then do `work` in the same thread and return its result."""
        # Whoever listens before he looks misses nothing; what was told up to now is taken into account.
        await self._events.follow()
        self._events.drain()
        stale, self._stale = self._stale, Stale()

        def looked() -> T:
            self._observer.look(stale)
            return work()

        try:
            return await self.namespaces.call(looked)
        except BaseException:
            self._stale.add(stale)
            raise

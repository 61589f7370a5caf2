"""The process that keeps the zones of members and services as the cluster's state says, and has Unbound take them."""

import asyncio
import logging
import sys
from pathlib import Path

from appliance import notify
from appliance.contracts.member import Members
from appliance.contracts.order import Order
from appliance.contracts.service import load
from appliance.dns.control import UnboundRefused, command
from appliance.dns.spec import Settings
from appliance.dns.zones import Zones, members_zone, services_zone
from appliance.errors import Unavailable
from appliance.queue.client import QueueClient, connect

log = logging.getLogger(__name__)

RETRY_S = 1.0
PAUSE_S = 0.5
"""The order may change several times a second; a record lives longer than that."""


class Follower:
    """What is known of members and order, and how it gets to Unbound.

    The files outlive Unbound, so that it finds the members at every start; it is told only when one has changed.
    """

    def __init__(self, zones: Zones, folder: Path, control: Path) -> None:
        self._zones = zones
        self._folder = folder
        self._control = control
        self._members: Members | None = None
        self._order: Order | None = None
        self._changed = asyncio.Event()
        self._unloaded = {zones.members, zones.services}

    def start(self) -> None:
        """Write empty zones where there are none yet, and have Unbound load what there is."""
        for origin, content in self._content(Members(revision=0, members=())).items():
            if not self._file(origin).exists():
                self._write(origin, content)
        self._changed.set()

    def members(self, members: Members) -> None:
        """Take the new membership."""
        self._members = members
        self._changed.set()

    def order(self, order: Order) -> None:
        """Take the new order."""
        self._order = order
        self._changed.set()

    async def run(self) -> None:
        """Bring every change to Unbound, until cancelled; while Unbound is away, try again."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.apply()
            except (Unavailable, UnboundRefused) as error:
                log.warning("the records wait: %s", error)
                self._changed.set()
                await asyncio.sleep(RETRY_S)
            else:
                notify.notify(f"STATUS={self._status()}")
                await asyncio.sleep(PAUSE_S)

    async def apply(self) -> None:
        """Write what has changed and have Unbound load it; raise Unavailable or UnboundRefused where it does not."""
        if self._members is not None:
            for origin, content in self._content(self._members).items():
                if not self._file(origin).exists() or self._file(origin).read_text(encoding="utf-8") != content:
                    self._write(origin, content)
                    self._unloaded.add(origin)
        for origin in sorted(self._unloaded):
            await command(self._control, f"auth_zone_reload {origin}.")
            self._unloaded.discard(origin)

    def _content(self, members: Members) -> dict[str, str]:
        zones = self._zones
        return {
            zones.members: members_zone(zones, members),
            zones.services: services_zone(zones, members, self._order),
        }

    def _file(self, origin: str) -> Path:
        return self._folder / f"{origin}.zone"

    def _write(self, origin: str, content: str) -> None:
        fresh = self._folder / f".{origin}.zone.new"
        fresh.write_text(content, encoding="utf-8")
        fresh.replace(self._file(origin))

    def _status(self) -> str:
        if self._members is None:
            return "The members are not known yet."
        return f"Records of {len(self._members.members)} members, revision {self._members.revision}."


async def _follow_members(queue: QueueClient, follower: Follower) -> None:
    async for event in queue.events("members"):
        follower.members(event.decode(Members))


async def _follow_order(queue: QueueClient, follower: Follower) -> None:
    async for event in queue.events("order"):
        follower.order(event.decode(Order))


async def main() -> None:
    """Follow the cluster until cancelled."""
    context = load()
    settings = context.parse_settings(Settings)
    follower = Follower(settings.zones, Path(settings.folder), Path(settings.control))
    follower.start()
    notify.ready()
    async with connect(context) as queue, asyncio.TaskGroup() as tasks:
        tasks.create_task(_follow_members(queue, follower))
        tasks.create_task(_follow_order(queue, follower))
        tasks.create_task(follower.run())


if __name__ == "__main__":
    sys.exit(notify.run(main))

"""Forms the intention: reads the facts that the configuration does not say, and has the pure part compute what
should be.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from appliance.component import LAN_LEGS, RUN, ComponentSpec, Placed
from appliance.config import Config
from appliance.contracts.machine import NicStatus
from appliance.errors import NotFound, Problem, Unavailable
from appliance.host.box import Box
from appliance.hwprofile import HardwareProfile
from appliance.queue.keys import Keys
from appliance.supervisor import cards, uplink
from appliance.supervisor.desired import SUPERVISOR, Desired, Facts, broker, desired
from appliance.supervisor.guests import Guests
from appliance.supervisor.keys import KeyStore, next_name
from appliance.supervisor.place import gateway, place
from appliance.supervisor.registry import specs
from appliance.supervisor.unit_text import run_directory


class Intent:
    """Remembers what it found on the way: the keys, the cards and the uplink's addresses, what a person should know."""

    def __init__(
        self,
        box: Box,
        keys: KeyStore,
        profile: HardwareProfile | None,
        answers: Callable[[str], Coroutine[Any, Any, bool]],
    ) -> None:
        self._box = box
        self._profile = profile
        self._store = keys
        self.guests = Guests(box, answers, Path(RUN) / "kvm.json")
        self._queue = ""
        self._declared: tuple[Config, tuple[ComponentSpec, ...], tuple[Placed, ...]] | None = None
        self._formed: tuple[Config, Facts, Desired] | None = None
        self.keys: dict[str, Keys] = {}
        self.addresses: dict[str, tuple[str, ...]] = {}
        self._unnamed: tuple[Problem, ...] = ()
        self.roles = cards.Roles(uplinks=())
        self.notes: tuple[str, ...] = ()

    async def form(self, config: Config) -> Desired:
        """Return what the machine should be; raise BadDeclaration where the components contradict each other."""
        if self._declared is None or self._declared[0] != config:
            found = await asyncio.to_thread(specs, config)
            self._declared = (config, found, place(config, found))
        _, declared, placed = self._declared
        way_out = gateway(placed).instance.name
        self.roles = cards.match(
            self._profile, await self._box.cards(), way_out, bonded=bool(config.network.uplink.bond)
        )
        self._unnamed = cards.unnamed(self._profile, config.network.sides)
        told = await asyncio.to_thread(uplink.lease, Path(run_directory(way_out)))
        self.addresses = await self._box.addresses(way_out)
        declared_notes = (note for spec in declared for instance in spec.instances for note in instance.notes)
        machines = await self.guests.choose(placed)
        self.notes = (*declared_notes, *self.guests.notes)
        self._queue = broker(placed).instance.name
        self.keys = await asyncio.to_thread(self._make_keys, declared, self._queue)
        four, six = uplink.by_family(self.uplink)
        facts = Facts(
            uplink_nics=tuple(card.name for card in self.roles.uplinks),
            lan_nics={role: card.name for role, card in self.roles.others},
            uplink_v4=four,
            uplink_v6=six,
            resolvers=told.resolvers,
            budget=None if self._profile is None else self._profile.budget,
            guests=machines,
            ground=self.guests.ground,
            public_keys={name: pair.public for name, pair in self.keys.items()},
        )
        # Declarations follow from the configuration alone: what was formed from the same stays.
        if self._formed is None or self._formed[:2] != (config, facts):
            self._formed = (config, facts, await asyncio.to_thread(desired, config, declared, facts))
        return self._formed[2]

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What does not fit, and with what the machine runs nevertheless."""
        return (*self.roles.findings, *self._unnamed)

    @property
    def uplink(self) -> tuple[str, ...]:
        """The uplink's addresses (CIDR form)."""
        return self.addresses.get(uplink.UPLINK, ())

    @property
    def nics(self) -> tuple[NicStatus, ...]:
        """The cards with a role, and what addresses LANs have."""
        return cards.told(self.roles, {role: self.addresses.get(leg, ()) for role, leg in LAN_LEGS.items()})

    @property
    def queue_key(self) -> str:
        """The broker's public key, empty before the machine has been laid out."""
        return self.keys[self._queue].public if self._queue in self.keys else ""

    async def rotate_key(self, instance: str) -> None:
        """Give the broker, or an instance that is known on other machines, its next key; it takes it at its restart.

        Raises NotFound where nobody was told of a next one.
        """
        if not self._queue:
            raise Unavailable("The machine has not been laid out yet.")
        if instance in ("", self._queue):
            await asyncio.to_thread(self._store.rotate, self._queue)
        elif next_name(instance) in self.keys:
            await asyncio.to_thread(self._store.replace, instance)
        else:
            hint = "`alpha-ren status` shows the instances; a bridge runs where there are `[[queue.routes]]`."
            raise NotFound(f"Here is no {instance} that has a next key.", hint=hint)

    def _make_keys(self, declared: tuple[ComponentSpec, ...], queue: str) -> dict[str, Keys]:
        instances = [instance for spec in declared for instance in spec.instances]
        for instance in instances:
            if instance.wireguard is not None:
                self._store.wireguard(instance.name)
        self._store.announce(queue)
        following = (next_name(instance.name) for instance in instances if instance.known_outside)
        return self._store.curve([SUPERVISOR, *(instance.name for instance in instances), *following])

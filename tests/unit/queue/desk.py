"""The broker without sockets, on clocks that a test moves by hand."""

import tempfile
from pathlib import Path

import msgspec

from appliance.contracts.access import Access, AccessList, Rights
from appliance.queue import wire
from appliance.queue.address import Home
from appliance.queue.auth import KeyRing
from appliance.queue.engine import Engine
from appliance.queue.logged_store import open_store
from appliance.queue.settings import BrokerSettings
from appliance.queue.store import Store
from tests.unit.queue.running import ALL


class HandClock:
    """Both clocks of the broker; `moved` is what the monotonic one has done since the machine started."""

    def __init__(self) -> None:
        self.moved = 0.0
        self.unix = 1_800_000_000.0
        self._offset = 0.0

    def now(self) -> float:
        return self.moved + self._offset

    def wall(self) -> float:
        return self.unix

    def resume(self, at: float) -> None:
        self._offset = at - self.moved

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.moved += seconds
        self.unix += seconds


class Desk:
    """An engine and its clients by name; a turn is run after each message, and what it sends is kept for `heard`.

    `chance` is what the engine draws for the jitter, from 0 to 1.
    """

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self.clock = HandClock()
        document = {"bind": [], "access_file": "", "min_free_bytes": 0} | settings
        self.settings = msgspec.convert(document, BrokerSettings)
        self.inboxes: dict[str, list[tuple[wire.Header, list[bytes]]]] = {}
        self.published = 0
        self.chance = 0.0
        self.start()

    def start(self, store: Store | None = None) -> None:
        """Start on what is on disk, without any session."""
        self.store = open_store(self.directory / "queue.sqlite") if store is None else store
        entries = tuple(Access(name=n, public_key=n, rights=ALL) for n in ("alice", "bob"))
        entries += (Access(name="nobody", public_key="nobody", rights=Rights()),)
        access = self.directory / "access.json"
        access.write_bytes(msgspec.json.encode(AccessList(entries=entries)))
        self.ring = KeyRing(access)
        home = Home("lan", "main")
        self.engine = Engine(
            self.store, home, self.settings, clock=self.clock, ring=self.ring, disk=self.directory,
            draw=lambda: self.chance,
        )  # fmt: skip
        self.inboxes.clear()

    def grant(self, name: str, rights: Rights) -> None:
        """Let the broker know another key, and open a session with it."""
        access = self.directory / "access.json"
        known = msgspec.json.decode(access.read_bytes(), type=AccessList)
        entries = (*known.entries, Access(name=name, public_key=name, rights=rights))
        access.write_bytes(msgspec.json.encode(AccessList(entries=entries)))
        self.ring.reload()
        self.hello(name)

    def change(self, name: str, rights: Rights | None) -> None:
        """Let a key have other rights from now on, or none and no way in."""
        access = self.directory / "access.json"
        known = msgspec.json.decode(access.read_bytes(), type=AccessList)
        entries = tuple(entry for entry in known.entries if entry.name != name)
        if rights is not None:
            entries += (Access(name=name, public_key=name, rights=rights),)
        access.write_bytes(msgspec.json.encode(AccessList(entries=entries)))
        self.ring.reload()
        self.engine.keys_changed()
        self.turn()

    def restart(self) -> None:
        """End as a kill does, with nothing said, and start again."""
        left = {path: path.read_bytes() for path in self.directory.glob("queue.sqlite*")}
        self.store.close()
        for path, content in left.items():
            path.write_bytes(content)
        self.start()

    def turn(self) -> None:
        """Run one turn and keep what it sends."""
        for parcel in self.engine.run_turn():
            assert isinstance(parcel.route, bytes)
            self.inboxes.setdefault(parcel.route.decode(), []).append(wire.from_broker(parcel.frames))

    def send(self, name: str, header: wire.Header, *bodies: bytes) -> None:
        """Let `name` send a message."""
        self.engine.handle(name.encode(), name, wire.to_broker(header, bodies))
        self.turn()

    def heard(self, name: str) -> list[tuple[wire.Header, list[bytes]]]:
        """Return and forget what `name` was sent."""
        return self.inboxes.pop(name, [])

    def ask(self, name: str, header: wire.Header, *bodies: bytes) -> wire.Results:
        """Send and return the Results; deliveries that came along are kept."""
        self.send(name, header, *bodies)
        inbox = self.inboxes[name]
        results = next(h for h, _ in inbox if isinstance(h, wire.Results))
        self.inboxes[name] = [(h, b) for h, b in inbox if h is not results]
        return results

    def hello(self, name: str) -> None:
        """Open a session."""
        self.send(name, wire.Hello("desk"))

    def publish(self, name: str, item: wire.Item, body: bytes = b"") -> int:
        """Publish one item and return its status."""
        return self.ask(name, wire.Publish(1, (item,)), body).statuses[0]

    def consume(self, name: str, pattern: str, credit: int = 1, held: tuple[wire.Token, ...] = ()) -> None:
        """Start a subscription."""
        assert self.ask(name, wire.Consume(2, 5, pattern, credit, held)).statuses == (wire.STORED,)

    def settle(self, name: str, token: wire.Token, outcome: int = wire.DONE, delay_s: float | None = 0.0) -> int:
        """End a delivery and return the status."""
        return self.ask(name, wire.Settle(3, (wire.Outcome(token, outcome, delay_s, "why"),))).statuses[0]

    def deliveries(self, name: str) -> list[wire.Handed]:
        """Return and forget the deliveries that `name` was sent."""
        return [handed for header, _ in self.heard(name) if isinstance(header, wire.Deliver) for handed in header.items]


def temporary_directory() -> "tempfile.TemporaryDirectory[str]":
    """Return a directory that goes when it is closed."""
    return tempfile.TemporaryDirectory(prefix="ard")

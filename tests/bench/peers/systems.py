"""The systems under measure: on loopback, their files on the same disk, each syncing before it acknowledges."""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from tests.bench.peers import amqp, nats
from tests.bench.peers.order import Order
from tests.unit.queue.running import Broker

STATE = Path("/state")
STARTED_WITHIN_S = 120.0
Name = Literal["arq", "own-client", "rabbitmq", "nats", "sqlite"]


class System:
    """One system; `fresh` lends a queue that nobody has used yet."""

    name: ClassVar[Name]

    @property
    def title(self) -> str:
        """Its name and version."""
        raise NotImplementedError

    @property
    def missing(self) -> str:
        """Why it cannot be measured here, or nothing."""
        return ""

    def start(self) -> None:
        """Start it and return once it serves."""

    def stop(self) -> None:
        """Stop it cleanly."""

    @property
    def roots(self) -> list[int]:
        """Its processes, without those that they started."""
        return []

    def fresh(self, queue: str) -> contextlib.AbstractContextManager[Order]:
        """Lend a fresh queue."""
        raise NotImplementedError


class Arq(System):
    """The queue itself, with a broker of its own for each fresh queue."""

    name: ClassVar[Name] = "arq"

    def __init__(self, python: tuple[str, ...] = (sys.executable,)) -> None:
        self.broker: Broker | None = None
        self._python = python

    @property
    def title(self) -> str:
        """See System."""
        return "ALPHA-REN"

    def start(self) -> None:
        """See System; without a queue there is nothing to start."""
        if self.broker is not None:
            self.broker.start(python=self._python)

    def stop(self) -> None:
        """See System."""
        if self.broker is not None:
            self.broker.stop()

    @property
    def roots(self) -> list[int]:
        """See System."""
        return [] if self.broker is None or self.broker.process is None else [self.broker.process.pid]

    @contextlib.contextmanager
    def fresh(self, queue: str) -> Iterator[Order]:
        """See System."""
        directory = STATE / "arq"
        directory.mkdir()
        self.broker = Broker(directory)
        self.broker.start(python=self._python)
        try:
            yield Order(system=self.name, queue=queue, connection=self.broker.connection())
        finally:
            self.broker.stop()
            self.broker = None
            shutil.rmtree(directory)


class OwnClient(Arq):
    """The queue as the appliance's components use it: with its own client, which has more to do than the lean ones."""

    name = "own-client"

    @property
    def title(self) -> str:
        """See System."""
        return "ALPHA-REN with its own client"


class Daemon(System):
    """A peer's server."""

    port: ClassVar[int]
    program: ClassVar[str]
    package: ClassVar[str]

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.directory = STATE / self.name

    @property
    def missing(self) -> str:
        """See System."""
        return "" if Path(self.program).exists() else f"Debian's package {self.package} is not here"

    @property
    def roots(self) -> list[int]:
        """See System."""
        return [] if self.process is None else [self.process.pid]

    def start(self) -> None:
        """See System."""
        self.directory.mkdir(exist_ok=True)
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), env={**os.environ, **self.environment()}, stdout=output, stderr=output
            )
        until = time.monotonic() + STARTED_WITHIN_S
        while not self.serves():
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"{self.name} did not start:\n{(self.directory / 'output').read_text()[-4000:]}")
            time.sleep(0.02)

    def command(self) -> list[str]:
        """How it is started."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What it finds in its environment."""
        return {}

    def serves(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        """See System."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(STARTED_WITHIN_S)
            self.process = None

    @contextlib.contextmanager
    def fresh(self, queue: str) -> Iterator[Order]:
        """See System."""
        with contextlib.closing(self.client(queue)) as client:
            client.declare()
        try:
            yield Order(system=self.name, queue=queue, port=self.port)
        finally:
            with contextlib.closing(self.client(queue)) as client:
                client.delete()

    def client(self, queue: str) -> amqp.Client | nats.Client:
        """Connect."""
        raise NotImplementedError


class Rabbitmq(Daemon):
    """RabbitMQ as Debian configures it, on loopback; a quorum queue syncs its log before it confirms."""

    name = "rabbitmq"
    port = 5672
    package = "rabbitmq-server"
    program = "/usr/lib/rabbitmq/bin/rabbitmq-server"

    @property
    def title(self) -> str:
        """See System."""
        return f"RabbitMQ {version(self.package)}"

    def command(self) -> list[str]:
        """See Daemon."""
        (self.directory / "rabbitmq.conf").write_text("listeners.tcp.default = 127.0.0.1:5672\n")
        (self.directory / "plugins").write_text("[].\n")
        return [self.program]

    def environment(self) -> dict[str, str]:
        """See Daemon."""
        own = {"MNESIA_BASE": "data", "LOG_BASE": "log", "CONFIG_FILE": "rabbitmq.conf",
               "ENABLED_PLUGINS_FILE": "plugins", "PID_FILE": "pid"}  # fmt: skip
        paths = {f"RABBITMQ_{key}": str(self.directory / name) for key, name in own.items()}
        return {**paths, "RABBITMQ_NODENAME": "rabbit@localhost", "ERL_EPMD_ADDRESS": "127.0.0.1",
                "HOME": str(self.directory)}  # fmt: skip

    def client(self, queue: str) -> amqp.Client:
        """See Daemon."""
        return amqp.Client(self.port, queue)


class Nats(Daemon):
    """NATS with JetStream, told to sync each message before it acknowledges it."""

    name = "nats"
    port = 4222
    package = "nats-server"
    program = "/usr/sbin/nats-server"

    @property
    def title(self) -> str:
        """See System."""
        return f"NATS {version(self.package)}"

    def command(self) -> list[str]:
        """See Daemon."""
        configuration = self.directory / "nats.conf"
        configuration.write_text(
            f"host: 127.0.0.1\nport: {self.port}\n"
            f"jetstream {{ store_dir: {self.directory / 'data'}, sync_interval: always }}\n"
        )
        return [self.program, "--config", str(configuration)]

    def client(self, queue: str) -> nats.Client:
        """See Daemon."""
        return nats.Client(self.port, queue)


class Sqlite(System):
    """SQLite alone, in the process that inserts."""

    name = "sqlite"

    @property
    def title(self) -> str:
        """See System."""
        return f"bare SQLite {sqlite3.sqlite_version}"

    @contextlib.contextmanager
    def fresh(self, queue: str) -> Iterator[Order]:
        """See System."""
        directory = STATE / "sqlite"
        directory.mkdir()
        try:
            yield Order(system="sqlite", queue=queue, database=str(directory / "bare.sqlite"))
        finally:
            shutil.rmtree(directory)


def version(package: str) -> str:
    """Return the upstream version of an installed Debian package."""
    asked = ["dpkg-query", "--show", "--showformat=${Version}", package]
    found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30)
    return found.stdout.partition("-")[0]

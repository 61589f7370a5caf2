"""A real broker process on loopback, with real keys, for tests to start, kill and start again."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from appliance.contracts.access import Access, AccessList, Rights
from appliance.contracts.service import ServiceContext
from appliance.queue.client import Connection, QueueClient
from appliance.queue.keys import Keys, generate_keys
from appliance.queue.settings import BrokerSettings
from tests.ports import free_port

ALL = Rights(
    publish=("*",), consume=("*",), emit=("*",), subscribe=("*",), call=("*",), serve=("*",), administer=("*",)
)
STARTED_WITHIN_S = 45.0
STOPPED_WITHIN_S = 45.0
RELOADED = "the key list was read"


class Broker:
    """One broker process; `settings` are changes to the defaults."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self.keys = generate_keys()
        self.next_keys = generate_keys()
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.clients: dict[str, tuple[Keys, Rights]] = {}
        self.outside: set[str] = set()
        self.place = ("lan", "main")
        self.routes: tuple[str, ...] = ()
        self.others: tuple[Access, ...] = ()
        """Further entries of the key list."""
        self.python: tuple[str, ...] = (sys.executable,)
        """How each of its processes is started."""
        self.process: subprocess.Popen[bytes] | None = None
        self.settings = settings
        self.grant("tester", ALL)

    @property
    def ipc(self) -> str:
        """The second endpoint."""
        return f"ipc://{self.directory}/broker.sock"

    @property
    def gate_socket(self) -> str:
        """Where the gate finds it."""
        return f"{self.directory}/gate.sock"

    def grant(self, name: str, rights: Rights, *, outside: bool = False) -> None:
        """Let the broker know a new key of that name."""
        self.clients[name] = (generate_keys(), rights)
        if outside:
            self.outside.add(name)
        self.write_access()
        if self.process is not None:
            self.reload()

    def revoke(self, name: str) -> Keys:
        """Take the key of that name off the list; return it."""
        keys, _ = self.clients.pop(name)
        self.write_access()
        return keys

    def write_access(self) -> None:
        """Write the key list, atomically."""
        entries = tuple(
            Access(name=n, public_key=k.public, rights=r, outside=n in self.outside)
            for n, (k, r) in self.clients.items()
        )
        entries += self.others
        candidate = self.directory / "access.json.new"
        candidate.write_bytes(msgspec.json.encode(AccessList(entries=entries, routes=self.routes)))
        candidate.rename(self.directory / "access.json")

    def start(self, *, python: tuple[str, ...] = ()) -> None:
        """Start the process and return once it said READY=1."""
        directory = self.directory
        (directory / "state").mkdir(exist_ok=True)
        settings = msgspec.convert(
            {
                "bind": [self.endpoint, self.ipc], "gate_socket": self.gate_socket,
                "access_file": str(directory / "access.json"),
                "state_directory": str(directory / "state"), "min_free_bytes": 0, **self.settings,
            },
            BrokerSettings,
        )  # fmt: skip
        self.process = self.launch("service", settings, directory / "log", python=python)

    def launch(
        self,
        module: str,
        settings: msgspec.Struct,
        log: Path,
        *,
        python: tuple[str, ...] = (),
        keys: Keys | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process that holds the broker's keys, or others, and return it once it said READY=1."""
        keys = keys or self.keys
        directory = self.directory / f"{module}.d"
        directory.mkdir(exist_ok=True)
        (directory / "curve-secret").write_text(keys.secret)
        (directory / "queue-keys").write_text(f"{self.keys.public}\n{self.next_keys.public}\n")
        lan, cluster = self.place
        context = ServiceContext(
            instance="queue", component="queue", machine="box", lan=lan, cluster=cluster, queue_endpoint=self.endpoint,
            public_key=keys.public, legs={},
            settings=msgspec.Raw(msgspec.json.encode(settings)),
        )  # fmt: skip
        document = directory / "service.json"
        document.write_bytes(msgspec.json.encode(context))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear, log.open("ab") as stderr:
            ear.bind(str(directory / "notify"))
            ear.settimeout(STARTED_WITHIN_S)
            process = subprocess.Popen(
                [*(python or self.python), "-m", f"appliance.queue.{module}"],
                env=os.environ
                | {
                    "ALPHA_REN_SERVICE": str(document), "CREDENTIALS_DIRECTORY": str(directory),
                    "NOTIFY_SOCKET": str(directory / "notify"),
                },
                stderr=stderr,
                cwd=Path(__file__).resolve().parents[3],
            )  # fmt: skip
            try:
                while b"READY=1" not in ear.recv(4096):
                    pass
            except TimeoutError:
                process.kill()
                process.wait(STOPPED_WITHIN_S)
                raise AssertionError(f"it did not start:\n{log.read_text()}") from None
            finally:
                (directory / "notify").unlink()
        return process

    def rotate(self) -> None:
        """Give the broker its next key, as its unit's restart does, and let it announce another."""
        self.stop()
        self.keys, self.next_keys = self.next_keys, generate_keys()
        self.start()

    def reload(self) -> None:
        """Let the process read the key list now, and return once it has."""
        before = self.log().count(RELOADED)
        self.signal(signal.SIGHUP)
        end = time.monotonic() + STARTED_WITHIN_S
        while self.log().count(RELOADED) == before:
            assert time.monotonic() < end, "the key list was not read again"
            time.sleep(0.01)

    def log(self) -> str:
        """What the process wrote so far."""
        return (self.directory / "log").read_text()

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """Stop the process as systemd does and return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        return self.process.wait(STOPPED_WITHIN_S)

    def kill(self) -> None:
        """Kill the process outright."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOPPED_WITHIN_S)

    def connection(self, name: str = "tester", keys: Keys | None = None, endpoint: str = "") -> Connection:
        """Return how to connect as somebody on the list, or with other keys."""
        return Connection(endpoint or self.endpoint, self.keys.public, keys or self.clients[name][0], *self.place)

    def client(self, name: str = "tester", keys: Keys | None = None, endpoint: str = "") -> QueueClient:
        """Return a client that speaks as `name`."""
        return QueueClient(self.connection(name, keys, endpoint))


@contextlib.contextmanager
def running(**settings: object) -> Iterator[Broker]:
    """A started broker in a directory of its own (short, for the socket's sake), stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="arq") as directory:
        broker = Broker(Path(directory), **settings)
        broker.start()
        try:
            yield broker
        finally:
            if broker.process is not None and broker.process.poll() is None:
                broker.stop()

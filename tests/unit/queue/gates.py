"""A real gate process before a real broker, for tests to fill, kill and start again."""

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from appliance.queue.auth import KeyRing
from appliance.queue.client import Connection, QueueClient
from appliance.queue.gate import Gate as GateLoop
from appliance.queue.keys import Keys
from appliance.queue.settings import GateSettings
from tests.ports import free_port
from tests.unit.queue.running import STOPPED_WITHIN_S, Broker

MAX_BODY = 2**20
MEMORY_MB = 192


class Gate:
    """One gate process; peers from outside find it at `endpoint`."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and return once it said READY=1."""
        settings = GateSettings(
            bind=(self.endpoint,),
            broker=f"ipc://{self.broker.gate_socket}",
            access_file=str(self.broker.directory / "access.json"),
            max_body=MAX_BODY,
            memory_mb=MEMORY_MB,
        )
        self.process = self.broker.launch("gate", settings, self.broker.directory / "gate.log")

    def log(self) -> str:
        """What the process wrote so far."""
        return (self.broker.directory / "gate.log").read_text()

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process is not None and self.process.poll() is None

    def process_ends(self) -> int:
        """Wait until the process ends by itself and return its exit status."""
        assert self.process is not None
        return self.process.wait(STOPPED_WITHIN_S)

    def kill(self) -> None:
        """Kill the process outright."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOPPED_WITHIN_S)

    def stop(self) -> int:
        """Stop the process as systemd does and return its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STOPPED_WITHIN_S)

    def connection(self, name: str, keys: Keys | None = None) -> Connection:
        """Return how `name` gets in here; it knows no other key of the server's than the broker's."""
        return self.broker.connection(name, keys, self.endpoint)

    def client(self, name: str) -> QueueClient:
        """Return a client that speaks as `name` from outside."""
        return QueueClient(self.connection(name))


@contextlib.contextmanager
def guarded(**settings: object) -> Iterator[Gate]:
    """A broker and its gate, both started, both stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="arq") as directory:
        broker = Broker(Path(directory), max_body=MAX_BODY, **settings)
        gate = Gate(broker)
        broker.start()
        try:
            gate.start()
            yield gate
        finally:
            status = gate.stop() if gate.running else 0
            if broker.process is not None and broker.process.poll() is None:
                broker.stop()
        assert status == 0, gate.log()


@contextlib.contextmanager
def in_thread(broker: Broker) -> Iterator[tuple[GateLoop, str]]:
    """A gate in this process, to be looked into, and its endpoint."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    access = broker.directory / "access.json"
    settings = GateSettings(
        bind=(endpoint,), broker=f"ipc://{broker.gate_socket}", access_file=str(access), max_body=MAX_BODY,
        memory_mb=MEMORY_MB,
    )  # fmt: skip
    loop = GateLoop(settings, broker.keys, KeyRing(access))
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield loop, endpoint
    finally:
        loop.stop()
        thread.join(STOPPED_WITHIN_S)
        loop.close()


def peak_mb(process: subprocess.Popen[bytes] | None) -> float:
    """Return the most memory that a process has had."""
    assert process is not None
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 2**10


def resident_mb(process: subprocess.Popen[bytes] | None) -> float:
    """Return how much memory a process has now."""
    assert process is not None
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20

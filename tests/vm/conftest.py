"""One boot of the image serves the whole ring: it is saved when ready, and every test module begins from there."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from appliance.host import accelerator
from appliance.host.accelerator import Accelerator
from appliance.queue.keys import Keys, generate_keys
from scripts.virtual import image
from scripts.virtual.ports import free_port
from tests.console import PASSWORD, Answer, ConsoleClient
from tests.vm import outside
from tests.vm.driver import OUTSIDE_HOST, VirtualMachine, virtual_machine
from tests.vm.outside import OutsideSystem
from tests.vm.wireguard import Peer

LOGS = image.REPOSITORY / "build" / "test-logs" / "vm"
VPN_SLOT = 7
VPN_ADDRESSES = (f"10.156.32.{VPN_SLOT}", f"fd9c:156:0:2::{VPN_SLOT}")
CLUSTER = "lan/east"
READY = "ready"


# The first test of the ring waits for a boot, which an emulated machine on a busy computer takes minutes for.
_TEST_DEADLINE_S = 1500


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test of this ring that names no deadline of its own a longer one than other rings have."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TEST_DEADLINE_S))


class Surroundings(NamedTuple):
    """What stands around the machine; the configuration it is booted with names all of it."""

    target: OutsideSystem
    smarthost: OutsideSystem
    vpn_peer: Peer
    cluster: Keys
    """Of the bridge of another cluster."""
    caller: Keys
    """Of a peer of the queue that is no cluster."""

    @property
    def config(self) -> str:
        """The appliance's configuration as TOML."""
        return f"""
            version = 1
            [machine]
            name = "vm-ring"
            [arsrv]
            egress_ports = [{self.target.port}]
            [mail]
            smarthost = "{OUTSIDE_HOST}:{self.smarthost.port}"
            sender = "box@example.org"
            recipients = ["ops@example.org"]
            [[vpn.peers]]
            name = "laptop"
            public_key = "{self.vpn_peer.public_key}"
            slot = {VPN_SLOT}
            [[queue.peers]]
            name = "{CLUSTER}"
            public_key = "{self.cluster.public}"
            publish = ["flow.*"]
            [[queue.peers]]
            name = "far/caller"
            public_key = "{self.caller.public}"
            publish = ["in.*"]
        """


@pytest.fixture(scope="session")
def disk_image() -> Path:
    """The image that was built for the profile `qemu`."""
    return image.disk_image("qemu")


@pytest.fixture(scope="session")
def chosen_accelerator() -> Accelerator:
    """What the probe found on this computer."""
    return asyncio.run(accelerator.probe()).accelerator


@pytest.fixture(scope="session")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """The systems outside, up."""
    folder = tmp_path_factory.mktemp("outside")
    with (
        outside.running("http_target.py", free_port(18080), folder / "deliveries") as target,
        outside.running("smtp_sink.py", free_port(12525), folder / "mails") as smarthost,
    ):
        yield Surroundings(target, smarthost, Peer(), generate_keys(), generate_keys())


@pytest.fixture(scope="session")
def booted(
    disk_image: Path,
    chosen_accelerator: Accelerator,
    surroundings: Surroundings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[VirtualMachine]:
    """The machine after its first boot, saved as `ready`."""
    folder = tmp_path_factory.mktemp("machine")
    credentials = {"alpha-ren.config": surroundings.config.encode()}
    with virtual_machine(disk_image, folder, LOGS / "ring", chosen_accelerator, credentials) as machine:
        machine.start()
        machine.wait_for_agent()
        machine.wait_until_ready()
        machine.save(READY)
        yield machine


@pytest.fixture(scope="module")
def machine(booted: VirtualMachine, request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    """The ready machine, as it was when it had just become ready."""
    booted.back_to(READY)
    yield booted
    # The next module's snapshot forgets the journal of this one.
    booted.keep_journal(LOGS / "ring" / f"{request.module.__name__.rpartition('.')[2]}.journal")
    booted.pause()


def patiently(ask: Callable[[], Answer], deadline_s: float = 180.0) -> Answer:
    """The first answer that is no 503: a busy box says "Retry-After", and a client does so."""
    end = time.monotonic() + deadline_s
    while (answer := ask()).status == 503 and time.monotonic() < end:
        time.sleep(float({name.lower(): value for name, value in answer.headers.items()}.get("retry-after", "2")))
    return answer


def post(machine: VirtualMachine, flow: str, message: dict[str, Any]) -> int:
    """Send a message as any client would; the answer's status."""
    body = json.dumps(message).encode()
    outside = ConsoleClient(machine.url, timeout_s=60)
    return patiently(lambda: outside.request("POST", f"/hooks/{flow}", body)).status


@pytest.fixture(scope="module")
def admin(machine: VirtualMachine) -> ConsoleClient:
    """Logged in as administrator, whose password was set with the pairing code that only the box shows."""
    client = ConsoleClient(machine.url, timeout_s=60)
    code = machine.status()["pairing"]["code"]
    answer = patiently(lambda: client.set_up(code))
    assert answer.status == 303, answer.body
    answer = patiently(lambda: client.log_in(PASSWORD))
    assert answer.status == 303, answer.body
    return client

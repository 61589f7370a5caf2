"""A server as a virtual machine on the firmware's own image: the guest's disk is the box's /usr, checked by dm-verity.

The box is emulated and so is the guest in it, which takes minutes: `make test-nested`.
"""

import asyncio
import json
from collections.abc import Iterator

import pytest

from appliance.host import accelerator
from scripts.virtual import image
from scripts.virtual.ports import free_port
from tests.console import PASSWORD, ConsoleClient
from tests.lab.systems import wait_until
from tests.vm import outside
from tests.vm.conftest import patiently, post
from tests.vm.driver import OUTSIDE_HOST, VirtualMachine, virtual_machine
from tests.vm.outside import OutsideSystem

LOGS = image.REPOSITORY / "build" / "test-logs" / "nested"
READY_S = 1200.0
UNIT = "alpha-ren-arsrv-1-vm.service"

pytestmark = pytest.mark.timeout(2 * READY_S)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutsideSystem]:
    """A system outside that takes deliveries."""
    record = tmp_path_factory.mktemp("outside") / "deliveries"
    with outside.running("http_target.py", free_port(18080), record) as system:
        yield system


@pytest.fixture(scope="module")
def machine(target: OutsideSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """A box whose one server is a virtual machine, ready."""
    settings = f'[arsrv]\ncount = 1\nisolation = "vm"\negress_ports = [{target.port}]\n'
    found = asyncio.run(accelerator.probe()).accelerator
    folder = tmp_path_factory.mktemp("machine")
    credentials = {"alpha-ren.config": settings.encode()}
    with virtual_machine(image.disk_image("qemu"), folder, LOGS, found, credentials) as box:
        box.start()
        box.wait_for_agent()
        try:
            box.wait_until_ready(READY_S)
        finally:
            box.keep_journal(LOGS / "ready.journal")
        yield box
        box.keep_journal(LOGS / "end.journal")


def test_the_server_is_a_guest_on_the_boxs_own_usr(machine: VirtualMachine) -> None:
    [guest] = json.loads(machine.output("alpha-ren", "guest", "--json"))["guests"]
    assert (guest["instance"], guest["state"]) == ("arsrv-1", "running")
    keeper = machine.output("systemctl", "cat", UNIT)
    assert "OpenFile=/dev/mapper/usr:disk0:read-only" in keeper
    inside = machine.output("journalctl", "-u", UNIT, "ALPHA_REN_GUEST=arsrv-1", "-o", "cat")
    assert "joined the cluster at revision" in inside


def test_a_message_goes_through_the_guest(machine: VirtualMachine, target: OutsideSystem) -> None:
    client = ConsoleClient(machine.url, timeout_s=60)
    code = machine.status()["pairing"]["code"]
    assert patiently(lambda: client.set_up(code)).status == 303
    assert patiently(lambda: client.log_in(PASSWORD)).status == 303
    url = f"http://{OUTSIDE_HOST}:{target.port}/orders"
    document = {"name": "orders", "deliver": {"kind": "http", "url": url, "timeout_s": 30}}
    assert patiently(lambda: client.put_flow(document)).status == 200
    # A server hears of a flow a moment after the portal has stored it.
    wait_until("the message is taken", lambda: post(machine, "orders", {"total": 3}) == 202, 120.0)
    assert json.loads(target.wait_for(1, 300.0)[0]["body"]) == {"total": 3}

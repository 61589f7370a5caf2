"""Network cards that come, go and are moved while the box runs: it says so, and goes on with what it has."""

from collections.abc import Iterator
from contextlib import contextmanager

from scripts.virtual.machine import UPLINK
from tests.vm.driver import SLOTS, VirtualMachine, lives
from tests.vm.test_screen import screen

UPLINK_CARD = f"{UPLINK}-card"
SUPERVISOR = "alpha-ren-supervisor.service"
SETTLED_DEADLINE_S = 300.0
HARDWARE = "52:54:00:12:34:56"
"""The address that QEMU gives to a machine's first card."""


def supervisor(machine: VirtualMachine) -> str:
    """Which process the supervisor is."""
    return machine.output("systemctl", "show", "-P", "MainPID", SUPERVISOR)


def warned(machine: VirtualMachine) -> dict[str, str]:
    """What the box warns of, by code."""
    return {warning["code"]: warning["message"] for warning in machine.status()["warnings"]}


def wait_for_warnings(machine: VirtualMachine, *codes: str) -> dict[str, str]:
    """Wait until the box warns of exactly this; returns the sentences by code."""
    shown = "sorted(warning['code'] for warning in status['warnings'])"
    machine.wait_for_status(f"{shown} == {sorted(codes)}", SETTLED_DEADLINE_S)
    return warned(machine)


def cards(machine: VirtualMachine) -> dict[str, str]:
    """The hardware addresses of the cards that have a role."""
    return {nic["role"]: nic["mac"] for nic in machine.status()["nics"]}


@contextmanager
def extra(machine: VirtualMachine, driver: str) -> Iterator[None]:
    """A further card in the second slot, its cable plugged into nothing."""
    machine.execute("netdev_add", type="user", id="loose", restrict=True)
    machine.plug("extra", "loose", SLOTS[1], driver=driver)
    try:
        yield
    finally:
        machine.unplug("extra")
        machine.execute("netdev_del", id="loose")


def test_the_uplinks_card_is_pulled_out_and_the_box_goes_on_without_it(machine: VirtualMachine) -> None:
    before = machine.status()
    assert cards(machine) == {"uplink": HARDWARE}
    process = supervisor(machine)
    machine.unplug(UPLINK_CARD)
    said = wait_for_warnings(machine, "nic-missing")
    assert "The network card for the uplink (driver virtio_net) is not there" in said["nic-missing"]
    status = machine.status()
    assert (status["nics"], status["uplink"]) == ([], [])
    assert (lives(status), supervisor(machine)) == (lives(before), process)
    assert "no network card" in screen(machine, "nic-missing: ")


def test_it_is_taken_again_when_it_comes_back(machine: VirtualMachine) -> None:
    before = supervisor(machine)
    machine.plug(UPLINK_CARD, UPLINK, SLOTS[0])
    assert wait_for_warnings(machine) == {}
    assert cards(machine) == {"uplink": HARDWARE}
    machine.wait_until_ready()
    assert supervisor(machine) == before


def test_a_card_without_a_role_is_left_alone(machine: VirtualMachine) -> None:
    with extra(machine, "vmxnet3"):
        said = wait_for_warnings(machine, "nic-unknown")
        assert "(vmxnet3 0000:02:00.0) has no role here and is left alone." in said["nic-unknown"]
        assert "nic-unknown: " in screen(machine, "nic-unknown: ")
        assert cards(machine) == {"uplink": HARDWARE}
    wait_for_warnings(machine)


def test_of_two_that_fit_the_one_that_was_moved_stays_the_uplink_also_for_a_new_supervisor(
    machine: VirtualMachine,
) -> None:
    with extra(machine, "virtio-net-pci"):
        said = wait_for_warnings(machine, "nic-ambiguous")
        assert said["nic-ambiguous"].startswith("2 network cards fit the uplink, ")
        machine.output("systemctl", "restart", SUPERVISOR, deadline_s=SETTLED_DEADLINE_S)
        assert wait_for_warnings(machine, "nic-ambiguous") == said
        assert cards(machine) == {"uplink": HARDWARE}
        assert machine.output("alpha-ren", "plan").startswith("Nothing to do")
        machine.wait_until_ready()
    wait_for_warnings(machine)

"""An operator who cuts himself off: the box comes back by itself, unless he says over the new path that he is there."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from appliance import config
from scripts.labs import topology
from tests.lab.box import Box, started
from tests.lab.systems import post, wait_until

PLAN = topology.default()
GATEWAY = topology.gateway(PLAN, "uplink")
HERE = topology.address(PLAN, "box", "uplink")
THERE = str(topology.network4(PLAN, "uplink")[150])
NOWHERE = "203.0.113.10"
"""An address that nobody on the LAN would look for the box at."""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box on DHCP that is ready."""
    with started(config.Config(), set_up=False) as box:
        yield box


def static(address: str, gateway: str) -> str:
    """A configuration with that uplink."""
    uplink = config.Uplink(mode="static", address=f"{address}/24", gateway=gateway)
    return msgspec.toml.encode(config.Config(network=config.Network(uplink=uplink))).decode()


LOST = static(NOWHERE, "203.0.113.1")
MOVED = static(THERE, GATEWAY)
VLAN = "[network.uplink]\nvlan = 7\n"


def apply(box: Box, document: str, within_s: int) -> tuple[int, str]:
    """Apply a configuration as an operator does; return the exit status and all that was said."""
    command = f"cat > /tmp/new.toml && alpha-ren apply --confirm-within {within_s} /tmp/new.toml"
    done = box.machine.run(["sh", "-c", command], stdin=document, check=False, deadline_s=60)
    return done.returncode, done.stdout + done.stderr


def answers(box: Box, address: str = HERE) -> bool:
    """Whether a foreign system gets an answer on 443 at an address."""
    asked = ["curl", "-sk", "-o", "/dev/null", "--max-time", "2", f"https://{address}/health"]
    return box.outside.succeeds(asked)


def pending(box: Box) -> dict[str, Any] | None:
    """The change that waits for its confirmation."""
    waiting: dict[str, Any] | None = box.status()["pending"]
    return waiting


def wait_back(box: Box) -> None:
    """Wait until the box is where it was, as it was."""
    wait_until("the box answers where it was", lambda: answers(box), 60)
    assert not answers(box, THERE)
    assert pending(box) is None
    wait_until("nothing is left to do", lambda: json.loads(plan(box))["steps"] == [], 60)


def plan(box: Box) -> str:
    """What the supervisor would do now."""
    return box.machine.run(["alpha-ren", "plan", "--json"]).stdout


def test_who_cuts_himself_off_is_let_in_again(box: Box) -> None:
    assert answers(box)
    status, said = apply(box, LOST, 20)
    assert status == 0
    assert "nic ardpx/uplink changes (addresses, leased)" in said
    assert "alpha-ren confirm" in said
    assert not answers(box)
    waiting = pending(box)
    assert waiting is not None
    assert 0 < waiting["seconds_left"] <= 20
    wait_back(box)
    status_now = box.status()
    assert status_now["last_error"]["code"] == "change-undone"
    # Whoever undoes what was asked for repairs nothing.
    assert not [repair for repair in status_now["repairs"] if "not confirmed" in repair["cause"]]


def test_a_vlan_that_nobody_else_is_in_is_undone(box: Box) -> None:
    """Be it that the kernel here has no VLANs at all, or that the LAN has none with this number."""
    status, said = apply(box, VLAN, 8)
    assert (status, "vlan ardpx/uplink comes" in said) == (0, True), said
    assert not answers(box)
    wait_back(box)
    nics = [(nic["role"], nic["name"]) for nic in box.status()["nics"]]
    assert nics == [("uplink", topology.nic_names(PLAN.machine[0])[0])]


def test_a_client_that_does_not_stop_when_it_is_asked_runs_again_afterwards(box: Box) -> None:
    box.machine.run(["systemctl", "kill", "--signal=STOP", "alpha-ren-ardpx-uplink.service"])
    apply(box, LOST, 8)
    wait_back(box)


def test_a_second_change_is_refused_while_one_is_pending(box: Box) -> None:
    apply(box, LOST, 600)
    status, said = apply(box, "[arsrv]\ncount = 3\n", 60)
    assert (status, said.splitlines()[0][:16]) == (2, "change-pending: ")
    assert "alpha-ren revert" in said
    box.machine.run(["alpha-ren", "revert"], deadline_s=60)
    wait_back(box)
    assert box.status()["last_error"] is None


def test_the_death_of_the_supervisor_gives_no_more_time(box: Box) -> None:
    apply(box, LOST, 8)
    box.machine.kill(box.machine.main_pid("alpha-ren-supervisor.service"), signal.SIGKILL)
    wait_back(box)


def test_a_change_that_is_confirmed_over_the_new_path_stays(box: Box) -> None:
    apply(box, MOVED, 60)
    wait_until("the box answers at its new address", lambda: answers(box, THERE), 60)
    assert not answers(box, HERE)
    box.machine.run(["alpha-ren", "confirm"])
    assert pending(box) is None
    assert post(box.outside, f"https://{THERE}/hooks/nobody", "{}").status == 404
    refused = box.machine.run(["alpha-ren", "confirm"], check=False)
    assert refused.stderr.startswith("nothing-pending: ")


def test_a_reboot_undoes_what_was_not_confirmed(box: Box) -> None:
    apply(box, LOST, 600)
    box.machine.reboot()
    wait_until("the box answers where it was before", lambda: answers(box, THERE), 90)
    status = box.status()
    assert (status["pending"], status["last_error"]["code"]) == (None, "change-undone")
    assert [address for address in status["uplink"] if address.startswith("203.")] == []

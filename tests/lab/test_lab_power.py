"""Power: /var outlasts a reboot, a power-off and a pulled plug; everything else starts anew."""

import signal
from collections.abc import Iterator

import pytest

from scripts.labs.errors import MachineLost
from scripts.labs.place import Machine
from scripts.labs.session import Lab
from tests.lab import plans


@pytest.fixture(scope="module")
def box() -> Iterator[Machine]:
    with Lab(plans.one_box()) as lab:
        yield lab.machine("box")


# A shutdown closes the journal before /var goes; a pulled plug never gets this far.
JOURNAL_CLOSED = "Stopping systemd-journal-flush.service"


def leave_traces(box: Machine) -> str:
    """Write to /var, /run and the network of `box`; return its machine id."""
    box.run(["sh", "-c", "date +%N >/var/lib/trace; cp /var/lib/trace /run/trace"])
    box.run(["ip", "link", "add", "trace", "type", "bridge"])
    box.run(["ip", "netns", "add", "keeps-the-card"])
    box.run(["ip", "link", "set", "enp0s2", "netns", "keeps-the-card"])
    return box.run(["cat", "/etc/machine-id", "/var/lib/trace"]).stdout


def assert_only_var_is_left(box: Machine, traces: str) -> None:
    assert box.run(["cat", "/etc/machine-id", "/var/lib/trace"]).stdout == traces
    assert not box.succeeds(["test", "-e", "/run/trace"])
    assert not box.succeeds(["ip", "link", "show", "trace"])
    assert box.succeeds(["ip", "link", "show", "enp0s2"])


def test_a_reboot_keeps_var_and_nothing_else(box: Machine) -> None:
    traces = leave_traces(box)
    boots = box.view().boots
    box.reboot()
    assert box.view().boots == boots + 1
    assert_only_var_is_left(box, traces)


def test_a_power_off_is_clean_and_the_machine_starts_again(box: Machine) -> None:
    traces = leave_traces(box)
    box.poweroff()
    assert box.view().state == "off"
    assert JOURNAL_CLOSED in box.logs(None, "--boot=-0")
    box.start()
    assert_only_var_is_left(box, traces)


def test_a_pulled_plug_ends_the_machine_at_once_and_it_starts_again(box: Machine) -> None:
    traces = leave_traces(box)
    box.unplug()
    assert JOURNAL_CLOSED not in box.logs(None, "--boot=-0")
    box.start()
    assert_only_var_is_left(box, traces)


def test_a_machine_that_dies_by_itself_is_seen_as_off(box: Machine) -> None:
    box.run(["systemctl", "poweroff", "--force", "--force"], check=False)
    box.wait_off()
    with pytest.raises(MachineLost, match="is off, not running"):
        box.wait_running(boots=box.view().boots + 1, deadline_s=5)
    box.start()
    box.kill(1, signal.SIGRTMIN + 5)
    box.wait_running(boots=box.view().boots + 1)

"""Power: off by the button, and what is still there after it."""

from tests.console import PASSWORD, ConsoleClient
from tests.vm.conftest import patiently
from tests.vm.driver import VirtualMachine


def test_the_power_button_ends_cleanly_and_the_state_is_still_there(
    machine: VirtualMachine, admin: ConsoleClient
) -> None:
    assert admin.get("/portal/api/flows").status == 200
    fingerprint = machine.status()["fingerprint"]
    boot = machine.output("cat", "/proc/sys/kernel/random/boot_id").replace("-", "")

    ending = machine.power_down()
    assert ending.by_guest
    assert ending.exit_code == 0

    machine.start()
    machine.wait_for_agent()
    machine.wait_until_ready()
    assert machine.status()["fingerprint"] == fingerprint
    client = ConsoleClient(machine.url, timeout_s=60)
    answer = patiently(lambda: client.log_in(PASSWORD))
    assert answer.status == 303
    # The journal of the boot before is there to the moment when it left /var, so that /var could be unmounted.
    last_words = machine.output("journalctl", "-b", "-1", "-o", "cat", "-n", "200")
    assert "Stopping systemd-journal-flush.service" in last_words
    assert machine.output("journalctl", "--list-boots").count(boot) == 1
    assert "recovering journal" not in machine.output("journalctl", "-b", "0", "-k", "-o", "cat")

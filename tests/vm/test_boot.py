"""The boot chain: what the image claims about itself is what the running system enforces."""

from tests.vm.driver import VirtualMachine

# Attributes (4 bytes) and value of the EFI variables, as efivarfs shows them.
_EFI = "/sys/firmware/efi/efivars/{}-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def efi_flag(machine: VirtualMachine, name: str) -> int:
    """The one-byte value of a global EFI variable."""
    return int(machine.output("od", "-An", "-tu1", "-j4", "-N1", _EFI.format(name)))


def test_secure_boot_enforces_keys_of_our_own(machine: VirtualMachine) -> None:
    assert efi_flag(machine, "SecureBoot") == 1
    assert efi_flag(machine, "SetupMode") == 0


def test_usr_is_a_read_only_erofs_on_dm_verity(machine: VirtualMachine) -> None:
    source, kind, options = machine.output("findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", "/usr").split()
    assert source == "/dev/mapper/usr"
    assert kind == "erofs"
    assert options.split(",")[0] == "ro"
    status = machine.output("cat", "/sys/block/dm-0/dm/uuid", "/sys/block/dm-0/ro").split()
    assert status[0].startswith("CRYPT-VERITY-")
    assert status[1] == "1"


def test_only_var_persists(machine: VirtualMachine) -> None:
    assert machine.output("findmnt", "-n", "-o", "FSTYPE", "/") == "tmpfs"
    assert machine.output("findmnt", "-n", "-o", "FSTYPE", "/var") == "ext4"


def test_no_unit_failed(machine: VirtualMachine) -> None:
    assert machine.output("systemctl", "--failed", "--plain", "--no-legend") == ""


def test_the_kernel_is_not_tainted(machine: VirtualMachine) -> None:
    assert machine.output("cat", "/proc/sys/kernel/tainted") == "0"


def test_nothing_is_left_to_start(machine: VirtualMachine) -> None:
    assert machine.output("systemctl", "list-jobs", "--no-legend") in ("", "No jobs running.")


def test_the_machine_says_that_it_is_ready_and_when(machine: VirtualMachine) -> None:
    status = machine.status()
    assert status["ready"] is True
    assert [unit for unit in status["units"] if unit["state"] != "active"] == []
    assert all(phase["seconds"] > 0 for phase in status["boot"])

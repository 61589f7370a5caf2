"""The hardware profile refuses what does not fit, with code, sentence and hint, and says where."""

from pathlib import Path

import msgspec
import pytest

from appliance import hwprofile
from appliance.hwprofile import HardwareProfile, InvalidProfile

PROFILES = Path(__file__).resolve().parents[2] / "hwprofiles"
QEMU = (PROFILES / "qemu.toml").read_text()


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_profile_in_the_repository_is_valid_and_named_as_its_file(path: Path) -> None:
    assert hwprofile.load(path).name == path.stem


def test_the_readme_documents_every_field() -> None:
    readme = (PROFILES / "README.md").read_text()
    sections = (
        HardwareProfile,
        hwprofile.Kernel,
        hwprofile.Nic,
        hwprofile.Disk,
        hwprofile.Console,
        hwprofile.Watchdog,
        hwprofile.Budget,
    )
    tables = {"kernel", "nics", "disk", "consoles", "budget", "watchdog"}
    fields = [field.name for section in sections for field in msgspec.structs.fields(section)]
    missing = [name for name in fields if name not in tables and f"| `{name}` |" not in readme]
    assert not missing
    assert all(f"[{table}]" in readme for table in tables)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('name = "qemu"', 'name = "qemu"\ncolour = "red"', "colour"),
        ('role = "uplink"', 'role = "uplink"\nspeed = 10', "$.nics[0]"),
        ('role = "uplink"', 'role = "backdoor"', "$.nics[0].role"),
        ('role = "uplink"', 'role = "cluster"', "$.nics"),
        ('driver = "virtio_net"', "", "$.nics[0]"),
        ('driver = "virtio_net"', 'mac = "52:54"', "$.nics[0].mac"),
        ('driver = "virtio_net"', 'mac = "52:54:00:AB:CD:EF"', "$.nics[0].mac"),
        ('driver = "virtio_net"', 'path = "../../x"', "$.nics[0].path"),
        ('driver = "virtio_net"', 'driver = "virtio_net"\nplace = 16', "$.nics[0].place"),
        ("[disk]", '[[nics]]\nrole = "cluster"\ndriver = "virtio_net"\n[disk]', "$.nics[1]"),
        ("[disk]", '[[nics]]\nrole = "uplink"\ndriver = "virtio_net"\nplace = 1\n[disk]', "$.nics[1]"),
        ("[disk]", 2 * '[[nics]]\nrole = "management"\nplace = 1\n' + "[disk]", "$.nics"),
        ("version = 1", "version = 2", "$.version"),
        ('name = "qemu"', 'name = "QEMU!"', "$.name"),
        ("linux-image-cloud-amd64", "linux-image-rt-amd64", "$.kernel.package"),
        ("minimum_mb = 4096", "minimum_mb = 100", "$.disk.minimum_mb"),
        ("minimum_mb = 4096", 'minimum_mb = "big"', "$.disk.minimum_mb"),
        ("speed = 115200", "speed = 115201", "$.consoles[1].speed"),
        ("speed = 115200", "", "$.consoles"),
        ('device = "tty1"', 'device = "tty1"\nspeed = 9600', "$.consoles"),
        ('device = "tty1"', 'device = "ttyS0"\nspeed = 9600', "$.consoles"),
        ('arsrv_cpus = "0-1"', 'arsrv_cpus = "0-2"', "$.budget.arsrv_cpus"),
        ('arsrv_cpus = "0-1"', 'arsrv_cpus = "1-0"', "$.budget.arsrv_cpus"),
        ("arsrv_memory_mb = 256", "arsrv_memory_mb = 2000", "$.budget.arsrv_memory_mb"),
        ('"dmi-sysfs"]', '"dmi-sysfs"]\ncommand_line = ["root=/dev/sda"]', "$.kernel.command_line"),
        ('"dmi-sysfs"]', '"dmi-sysfs"]\ncommand_line = ["two words"]', "$.kernel.command_line"),
    ],
)
def test_an_invalid_profile_is_refused_and_the_field_is_named(old: str, new: str, where: str) -> None:
    assert QEMU.count(old) == 1
    with pytest.raises(InvalidProfile) as refusal:
        hwprofile.parse(QEMU.replace(old, new))
    assert refusal.value.code == "invalid-hwprofile"
    assert where in refusal.value.message
    assert refusal.value.advice


def test_a_profile_that_does_not_exist_is_refused_and_those_that_do_are_named() -> None:
    with pytest.raises(InvalidProfile) as refusal:
        hwprofile.load(PROFILES / "toaster.toml")
    assert "toaster" in refusal.value.message
    assert "qemu" in refusal.value.advice


def test_text_that_is_no_toml_is_refused() -> None:
    with pytest.raises(InvalidProfile):
        hwprofile.parse("version = = 1")


def test_consoles_become_kernel_options_in_their_order() -> None:
    assert hwprofile.parse(QEMU).kernel_options == ("console=tty0", "console=ttyS0,115200n8")


def test_a_cpu_set_is_read_as_systemd_reads_it() -> None:
    assert hwprofile.cpus_of("0,2-3") == {0, 2, 3}

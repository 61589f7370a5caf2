"""QEMU's command line for a guest."""

from pathlib import Path

import msgspec
import pytest

from appliance.errors import InvalidInput
from appliance.host.guest import Guest, Hands, command_line, kernel_line, read, tsc_khz

GUEST = Guest(
    name="arsrv-1",
    tap="vm",
    mac="02:9c:00:ff:01:01",
    cpus=1,
    memory_mb=256,
    accelerator="tcg",
    credentials={},
    qmp="/run/alpha-ren/arsrv-1/vm/qmp.sock",
    stop_s=15,
)
HANDS = Hands(qmp=7, journal=9, disks=((3, False), (4, True)))
ON_KVM = msgspec.structs.replace(GUEST, accelerator="kvm")


def after(command: list[str], option: str) -> list[str]:
    """What follows each time an option is given."""
    return [command[number + 1] for number, word in enumerate(command) if word == option]


def test_a_device_and_a_file_become_disks_that_cannot_be_written() -> None:
    command = command_line(GUEST, HANDS, {})
    assert after(command, "-blockdev") == [
        "driver=host_device,node-name=disk0,filename=/dev/fdset/0,read-only=on",
        "driver=file,node-name=disk1,filename=/dev/fdset/1,read-only=on",
    ]
    assert after(command, "-add-fd") == ["fd=3,set=0", "fd=4,set=1"]


def test_credentials_go_in_by_file_so_that_no_command_line_shows_them() -> None:
    command = command_line(GUEST, HANDS, {"curve-secret": Path("/run/credentials/x/curve-secret")})
    assert after(command, "-fw_cfg") == [
        "name=opt/io.systemd.credentials/curve-secret,file=/run/credentials/x/curve-secret"
    ]


def test_kvm_is_handed_over_and_emulation_is_told_the_rate_of_the_clock() -> None:
    hands = msgspec.structs.replace(HANDS, kvm=5)
    command = command_line(ON_KVM, hands, {}, tsc_khz=2_000_000)
    assert after(command, "-accel") == ["kvm,device=/dev/fdset/2"]
    assert "fd=5,set=2" in after(command, "-add-fd")
    assert "tsc" not in after(command, "-append")[0]
    assert "tsc_early_khz=2000000" in after(command_line(GUEST, HANDS, {}, tsc_khz=2_000_000), "-append")[0]
    assert "tsc" not in kernel_line(GUEST, 0)


@pytest.mark.parametrize(
    ("text", "khz"),
    [("processor\t: 0\ncpu MHz\t\t: 2499.998\ncache size\t: 1 KB\n", 2_499_998), ("Processor: ARM\n", 0), ("", 0)],
)
def test_the_rate_is_read_from_what_the_kernel_says_of_the_processor(text: str, khz: int) -> None:
    assert tsc_khz(text) == khz


@pytest.mark.parametrize("text", ["", "{}", '{"name": 7}', msgspec.json.encode(GUEST).decode()[:-1] + ', "more": 1}'])
def test_a_document_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "guest.json"
    path.write_text(text)
    with pytest.raises(InvalidInput):
        read(path)
    path.write_bytes(msgspec.json.encode(GUEST))
    assert read(path) == GUEST

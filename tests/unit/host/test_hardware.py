"""Network cards as sysfs tells of them, and the events of their coming and going."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from appliance.host import hardware
from appliance.host.dump import Link
from appliance.host.hardware import Card, card

REPOSITORY = Path(__file__).parents[3]
LINK = Link(
    index=2, name="uplink", kind="", mac="02:00:00:00:00:01", alias="", up=True, mtu=1500, peer=0, master=0,
    isolated=False, own_mac="52:54:00:00:00:01", bus="virtio", device="virtio0",
)  # fmt: skip


def test_a_card_is_known_by_its_hardware_wherever_it_was_moved(tmp_path: Path) -> None:
    device = tmp_path / "devices/pci0000:00/0000:00:02.0/virtio0"
    driver = tmp_path / "bus/virtio/drivers/virtio_net"
    for folder in (device, driver, tmp_path / "bus/virtio/devices"):
        folder.mkdir(parents=True)
    (device / "driver").symlink_to(driver)
    (tmp_path / "bus/virtio/devices/virtio0").symlink_to(device)
    assert card("enp0s2", LINK, "edge", tmp_path / "bus") == Card(
        name="enp0s2",
        mac="52:54:00:00:00:01",
        driver="virtio_net",
        path=str(device),
        held_in="edge",
        held_as="uplink",
    )


def test_of_a_card_without_hardware_the_mac_address_is_known(tmp_path: Path) -> None:
    assert card("eth0", LINK, buses=tmp_path) == Card(name="eth0", mac="52:54:00:00:00:01")


def test_a_name_that_a_card_has_no_longer_is_not_settled_where_udevd_gives_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "UDEV", tmp_path / "control")
    assert hardware.settled("eth-gone")
    (tmp_path / "control").touch()
    assert not hardware.settled("eth-gone")


LISTENER = """
import asyncio
from appliance.host.hardware import CardEvents

async def listen():
    events = CardEvents(lambda said: print(said, flush=True))
    print("listening", flush=True)
    await asyncio.Event().wait()

asyncio.run(listen())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="makes network cards, which only root may")
def test_a_card_that_comes_goes_or_gets_another_name_is_told() -> None:
    """In a network namespace of its own: the kernel tells of its cards there, where no udevd is."""

    async def work() -> None:
        listener = await asyncio.create_subprocess_exec(
            "unshare", "--net", sys.executable, "-c", LISTENER, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY
        )
        assert listener.stdout is not None
        try:

            async def heard(line: str) -> None:
                assert listener.stdout is not None
                while (said := await listener.stdout.readline()) != f"{line}\n".encode():
                    assert said, f"the listener ended before it said: {line}"

            async with asyncio.timeout(30):
                await heard("listening")
                for words, line in (
                    ("add enp9s9 type veth peer name ar-c9", "network card enp9s9: add"),
                    ("set enp9s9 name enp8s8", "network card enp8s8: move"),
                    ("del enp8s8", "network card enp8s8: remove"),
                ):
                    command = ["nsenter", f"--target={listener.pid}", "--net", "ip", "link", *words.split()]
                    changed = await asyncio.create_subprocess_exec(*command)
                    assert await changed.wait() == 0
                    await heard(line)
        finally:
            listener.kill()
            await listener.wait()

    asyncio.run(work())

"""An uplink that is a VLAN, an LACP bond, or a VLAN of one: a second real kernel is at the other end of its cables."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from appliance.host.accelerator import Accelerator
from tests.vm.conftest import LOGS, Surroundings
from tests.vm.driver import SLOTS, VirtualMachine
from tests.vm.neighbour import FULL_DUPLEX, Cable, Neighbour, neighbour
from tests.vm.test_cards import SETTLED_DEADLINE_S, UPLINK_CARD, cards, wait_for_warnings

STATIC = 'mode = "static"\naddress = "192.0.2.10/24"\ngateway = "192.0.2.1"\n'
ADDRESS = "192.0.2.10"
HARDWARE = ("52:54:00:4d:00:00", "52:54:00:4d:00:01")
FULL = dict(word.split("=") for word in FULL_DUPLEX.split(","))

ASK = """
import http.client, ssl, sys, time
within_s = float(sys.argv[2])
context = ssl._create_unverified_context()
end = time.monotonic() + within_s
while True:
    try:
        line = http.client.HTTPSConnection(sys.argv[1], timeout=min(20, within_s), context=context)
        line.request("GET", "/ready")
        print(line.getresponse().status)
        break
    except OSError as error:
        if time.monotonic() > end:
            print(type(error).__name__)
            break
"""

FAR_BOND = """
ip link add far type bond mode 802.3ad miimon 100 lacp_rate fast
for card in eth0 eth1; do ip link set $card down; ip link set $card master far; done
ip link set far up
"""
"""The neighbour's own bond of both cables, as a switch would have it."""


class Outside(NamedTuple):
    """The machine and what is at the other end of its cables."""

    machine: VirtualMachine
    neighbour: Neighbour
    config: str

    def apply(self, uplink: str) -> None:
        """Give the machine another uplink, and keep it."""
        document = f"{self.config}\n[network.uplink]\n{uplink}"
        command = "cat > /run/uplink.toml && alpha-ren apply /run/uplink.toml && alpha-ren confirm"
        done = self.machine.run("sh", "-c", command, stdin=document, deadline_s=240)
        assert done.code == 0, done.out + done.err

    def answer(self, address: str = ADDRESS, within_s: float = 240.0) -> str:
        """What the neighbour gets for an answer on 443, the name of an error at the deadline."""
        return self.neighbour.shell(f"python3 -c '{ASK}' {address} {within_s}", deadline_s=within_s + 60)

    def bond(self, name: str) -> str:
        """What the machine's kernel says of a bond."""
        return self.machine.output("ip", "netns", "exec", "ardpx", "cat", f"/proc/net/bonding/{name}")

    def wait_for_partner(self, name: str, ports: int) -> None:
        """Wait until the bond has agreed with the neighbour's about so many ports."""
        partner = self.neighbour.shell("cat /sys/class/net/far/address")
        file = f"ip netns exec ardpx cat /proc/net/bonding/{name}"
        agreed = f"{file} | grep -A5 'Active Aggregator' | grep -q 'Number of ports: {ports}'"
        self.machine.wait_for(f"{agreed} && {file} | grep -q 'Partner Mac Address: {partner}'", SETTLED_DEADLINE_S)


@pytest.fixture(scope="module")
def outside(
    machine: VirtualMachine,
    surroundings: Surroundings,
    chosen_accelerator: Accelerator,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Outside]:
    """The machine, its card exchanged for one whose cable leads to the neighbour; a second cable lies ready."""
    folder = tmp_path_factory.mktemp("cables")
    cables = tuple(Cable(name, folder) for name in ("cable1", "cable2"))
    with neighbour(cables, Path(LOGS) / "neighbour.log", chosen_accelerator) as beside:
        machine.unplug(UPLINK_CARD)
        for cable in cables:
            machine.execute("netdev_add", **cable.of_machine)
        machine.plug("card1", "cable1", SLOTS[0], mac=HARDWARE[0], **FULL)
        beside.wait()
        yield Outside(machine, beside, surroundings.config)


def test_a_vlan_answers_who_is_in_it_and_nobody_else(outside: Outside) -> None:
    outside.apply(f"vlan = 7\n{STATIC}")
    assert cards(outside.machine) == {"uplink": HARDWARE[0]}
    for number in (7, 8):
        outside.neighbour.shell(f"ip link add link eth0 name eth0.{number} type vlan id {number}")
    outside.neighbour.shell("ip link set eth0 up; ip addr add 192.0.2.1/24 dev eth0.7; ip link set eth0.7 up")
    assert outside.answer() == "200"
    outside.neighbour.shell("ip addr flush dev eth0.7")
    for elsewhere in ("eth0", "eth0.8"):
        outside.neighbour.shell(f"ip addr add 192.0.2.1/24 dev {elsewhere}; ip link set {elsewhere} up")
        assert outside.answer(within_s=6) in ("OSError", "TimeoutError")
        outside.neighbour.shell(f"ip addr flush dev {elsewhere}")


def test_a_vlan_gets_its_address_by_dhcp(outside: Outside) -> None:
    server = (
        "dnsmasq --user=root --conf-file=/dev/null --pid-file=/run/dnsmasq --port=0 --interface=eth0.7 "
        "--bind-interfaces --dhcp-range=192.0.2.77,192.0.2.77,1h --dhcp-authoritative"
    )
    outside.neighbour.shell(f"ip addr add 192.0.2.1/24 dev eth0.7; mkdir -p /var/lib/misc; {server}")
    outside.apply("vlan = 7\n")
    outside.machine.wait_for_status("'192.0.2.77/24' in str(status['uplink'])", SETTLED_DEADLINE_S)
    assert outside.answer("192.0.2.77") == "200"


def test_two_cards_are_a_bond_that_its_neighbour_agrees_with(outside: Outside) -> None:
    outside.neighbour.shell("kill $(cat /run/dnsmasq); ip link del eth0.7; ip link del eth0.8\n" + FAR_BOND)
    outside.neighbour.shell("ip addr add 192.0.2.1/24 dev far")
    outside.machine.plug("card2", "cable2", SLOTS[1], mac=HARDWARE[1], **FULL)
    wait_for_warnings(outside.machine, "nic-ambiguous")
    outside.apply(f'bond = "lacp"\n{STATIC}')
    wait_for_warnings(outside.machine)
    outside.wait_for_partner("uplink", ports=2)
    assert [nic["mac"] for nic in outside.machine.status()["nics"]] == list(HARDWARE)
    assert outside.answer() == "200"


def test_a_cable_that_breaks_costs_the_bond_nothing_but_that_port(outside: Outside) -> None:
    outside.machine.execute("set_link", name="card1", up=False)
    outside.wait_for_partner("uplink", ports=1)
    assert outside.answer() == "200"
    outside.machine.execute("set_link", name="card1", up=True)
    outside.wait_for_partner("uplink", ports=2)


def test_a_card_of_the_bond_that_is_pulled_out_is_taken_back_when_it_comes_again(outside: Outside) -> None:
    outside.machine.unplug("card1")
    said = wait_for_warnings(outside.machine, "bond-short")
    assert said["bond-short"].startswith("The uplink's bond has one network card alone, ")
    assert outside.answer() == "200"
    outside.machine.plug("card1", "cable1", SLOTS[0], mac=HARDWARE[0], **FULL)
    wait_for_warnings(outside.machine)
    outside.wait_for_partner("uplink", ports=2)


def test_a_vlan_of_the_bond_answers_who_is_in_it(outside: Outside) -> None:
    outside.neighbour.shell(
        "ip addr flush dev far; ip link add link far name far.7 type vlan id 7; "
        "ip addr add 192.0.2.1/24 dev far.7; ip link set far.7 up"
    )
    outside.apply(f'bond = "lacp"\nvlan = 7\n{STATIC}')
    outside.wait_for_partner("uplink-bond", ports=2)
    assert outside.answer() == "200"
    assert outside.machine.output("alpha-ren", "plan").startswith("Nothing to do")

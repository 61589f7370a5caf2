"""A topology is strict, and every address follows from it."""

from pathlib import Path

import pytest

from scripts.labs import topology
from scripts.labs.errors import InvalidTopology

HERE = Path(__file__).parent

TWO_LANS = """
[[lan]]
name = "uplink"
ipv6 = "2001:db8:1::/64"

[[lan]]
name = "cluster"
ipv4 = "192.0.2.0/24"
dhcp = false

[[machine]]
name = "first"
nics = [{ lan = "uplink" }, { lan = "cluster" }]
publish = [443]

[machine.config.arsrv]
count = 3

[[machine]]
name = "second"
nics = [{ lan = "cluster", name = "lan0" }]

[[host]]
name = "outside"
lans = ["uplink"]
"""


def test_addresses_follow_from_the_order_of_the_document() -> None:
    plan = topology.parse(TWO_LANS, HERE)
    assert topology.gateway(plan, "uplink") == "198.18.0.1"
    assert topology.address(plan, "outside", "uplink") == "198.18.0.10"
    assert topology.address(plan, "first", "uplink") == "198.18.0.100"
    assert topology.address(plan, "second", "cluster") == "192.0.2.101"
    assert topology.mac(plan, "second", 0) == "52:54:00:1a:01:00"


def test_cards_are_named_as_the_virtual_machine_names_them() -> None:
    first, second = topology.parse(TWO_LANS, HERE).machine
    assert topology.nic_names(first) == ["enp0s2", "enp0s3"]
    assert topology.nic_names(second) == ["lan0"]


def test_a_machines_configuration_is_the_appliances_own_type() -> None:
    first = topology.parse(TWO_LANS, HERE).machine[0]
    assert first.config is not None
    assert first.config.arsrv.count == 3


def test_a_configuration_file_is_read_relative_to_the_topology(tmp_path: Path) -> None:
    (tmp_path / "box.toml").write_text("version = 1\n", encoding="utf-8")
    plan = topology.parse('[[lan]]\nname = "a"\n[[machine]]\nname = "m"\nconfig_file = "box.toml"\n', tmp_path)
    assert plan.machine[0].credentials == {"alpha-ren.config": "version = 1\n"}


def test_the_default_topology_is_valid() -> None:
    topology.check(topology.default())


LAN = '[[lan]]\nname = "uplink"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "lan"),
        ("lan = []", "no LAN"),
        ('[[lan]]\nname = "lo"', "cannot be called `lo`"),
        ('[[lan]]\nname = "sixteen-letters-"', r"at `\$.lan\[0\].name`"),
        (LAN + "colour = 1", "unknown field `colour`"),
        (LAN + '[[machine]]\nname = "Box"', r"at `\$.machine\[0\].name`"),
        (LAN + '[[machine]]\nname = "box"\n[machine.config.arsrv]\ncount = 0', r"config.arsrv.count"),
        (LAN + LAN, "Two LANs are called `uplink`"),
        (LAN + '[[machine]]\nname = "a"\n[[host]]\nname = "a"\nlans = []', "are called `a`"),
        (LAN + '[[machine]]\nname = "a"\nnics = [{lan = "none"}]', "the LAN `none`, which does not exist"),
        (LAN + '[[host]]\nname = "a"\nlans = []', "plugged into no LAN"),
        (LAN + '[[host]]\nname = "a"\nlans = ["uplink", "uplink"]', "one LAN twice"),
        (LAN + '[[machine]]\nname = "a"\npublish = [443]', "publishes a port but has no card"),
        (LAN + '[[machine]]\nname = "a"\nconfig_file = "missing.toml"', "cannot be read"),
        (LAN + 'ipv4 = "10.0.0.0/28"', "/24 or larger"),
        (LAN + 'ipv4 = "nonsense"', "no valid IPv4 network"),
        (LAN + 'ipv6 = "2001:db8::/56"', "needs a /64"),
    ],
)
def test_a_wrong_topology_is_refused_with_its_reason(text: str, complaint: str) -> None:
    with pytest.raises(InvalidTopology, match=complaint) as caught:
        topology.parse(text, HERE)
    assert caught.value.code == "invalid-topology"
    assert caught.value.advice

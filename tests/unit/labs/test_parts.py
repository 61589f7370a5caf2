"""What the lab tells the kernel and its programs, decided without either."""

import socket
from pathlib import Path

import pytest

from scripts.labs import cgroup, keeper, lan, machine, publish, topology
from scripts.labs.errors import Missing

PLAN = topology.default()


def test_the_lans_are_bridges_with_the_gateways_addresses() -> None:
    batch = lan.bridges(PLAN).splitlines()
    assert "link add lan0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0" in batch
    assert "address add 198.18.0.1/24 dev lan0" in batch
    assert "address add 2001:db8:1::1/64 dev lan0 nodad" in batch


def test_a_cable_is_made_with_its_final_name_inside_the_machine() -> None:
    pull, plug = lan.cable(PLAN, PLAN.machine[0])
    assert pull.splitlines() == ["link delete m0n0", "netns delete box"]
    assert "link add m0n0 type veth peer name enp0s2 address 52:54:00:1a:00:00 netns box" in plug
    assert "master lan0" in plug


def test_the_server_of_a_lan_knows_every_card_and_every_name() -> None:
    argv = lan.dhcp_server(PLAN, PLAN.lan[0], Path("/state"))
    assert "--dhcp-host=52:54:00:1a:00:00,198.18.0.100,box" in argv
    assert "--host-record=outside.test,198.18.0.10" in argv
    assert "--dhcp-option=option:dns-server,198.18.0.1" in argv


def test_upstream_resolvers_of_a_lan_are_handed_out() -> None:
    other = topology.Lan(name="uplink", dns=("198.18.0.10",))
    plan = topology.Topology(lan=(other,))
    assert "--dhcp-option=option:dns-server,198.18.0.10" in lan.dhcp_server(plan, other, Path("/state"))


def test_a_container_gets_usr_alone_and_var_from_the_lab(tmp_path: Path) -> None:
    for place in ("tree/usr/lib/alpha-ren/appliance", "tree/usr/lib/alpha-ren/firstboot", "copy/appliance"):
        (tmp_path / place).mkdir(parents=True)
    sources = machine.Sources(tree=tmp_path / "tree", working_copy=tmp_path / "copy")
    argv = machine.command_line(PLAN.machine[0], sources, Path("/state"))
    assert "--volatile=yes" in argv
    assert "--bind=/state/var:/var" in argv
    assert f"--bind-ro={tmp_path}/copy/appliance:/usr/lib/alpha-ren/appliance" in argv
    assert not any("firstboot" in word for word in argv), "what the working copy lacks is not laid over"


def test_credentials_are_the_url_of_the_published_console_and_the_configuration() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = keeper.Published(machine="box", port=443, socket=listening)
        given = keeper.credentials(PLAN.machine[0], [port])
        assert given == {"alpha-ren.outside-url": f"https://127.0.0.1:{port.outside}"}


def test_a_busy_port_is_chosen_around() -> None:
    with publish.listen(443) as first, publish.listen(443) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


def test_the_unified_hierarchy_is_found_on_both_kinds_of_host() -> None:
    hybrid = (
        "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    assert cgroup.unified_root(hybrid) == Path("/sys/fs/cgroup/unified")
    pure = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
    assert cgroup.unified_root(pure) == Path("/sys/fs/cgroup")
    with pytest.raises(Missing):
        cgroup.unified_root("31 24 0:27 / / rw - ext4 /dev/vda rw\n")


def test_the_own_group_is_read_from_the_unified_line() -> None:
    assert cgroup.own_group("4:memory:/other\n0::/system.slice/lab.scope\n") == "/system.slice/lab.scope"

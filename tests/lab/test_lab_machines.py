"""A machine of the lab is what the box is: /usr from the firmware, /var that lasts, everything else made at boot."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from scripts.labs import launch
from scripts.labs.errors import CommandFailed, LabError
from scripts.labs.place import Machine
from scripts.labs.session import Lab
from tests.lab import plans

SAY_OUTSIDE = "import http.server, sys; http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]))"

LIST_COMMANDS = """
import pathlib
for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        print(process.read_text().rstrip("\\0").replace("\\0", " "))
    except (FileNotFoundError, ProcessLookupError):
        pass
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    plan = plans.one_box(
        publish=(443, 8080), credentials={"alpha-ren.config": 'version = 1\n[machine]\nname = "in-the-lab"\n'}
    )
    with Lab(plan) as running:
        yield running


@pytest.fixture
def box(lab: Lab) -> Machine:
    return lab.machine("box")


def test_a_machine_is_running_with_systemd_as_its_first_process(box: Machine) -> None:
    assert box.view().state == "running"
    assert box.run(["cat", "/proc/1/comm"]).stdout == "systemd\n"
    assert box.run(["systemctl", "is-system-running"]).stdout == "running\n"


def test_only_usr_comes_from_the_tree_and_it_is_read_only(box: Machine) -> None:
    kinds = {
        place: box.run(["findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--target", place]).stdout.split()
        for place in ("/", "/usr", "/etc")
    }
    assert kinds["/"][0] == "tmpfs"
    assert kinds["/etc"][0] == "tmpfs"
    assert "ro" in kinds["/usr"][1].split(",")
    tree = launch.tree_at(launch.DEFAULT_TREE)
    assert box.run(["cat", "/usr/lib/os-release"]).stdout == (tree / "usr/lib/os-release").read_text(encoding="utf-8")


def test_the_working_copy_lies_over_the_installed_code(box: Machine) -> None:
    seen = box.run(["cat", "/usr/lib/alpha-ren/appliance/errors.py"]).stdout
    assert seen == (launch.WORKING_COPY / "appliance" / "errors.py").read_text(encoding="utf-8")
    with pytest.raises(CommandFailed, match="Read-only file system"):
        box.run(["touch", "/usr/lib/alpha-ren/appliance/errors.py"])


def test_credentials_arrive_and_the_outside_url_names_the_published_port(box: Machine) -> None:
    credentials = "/run/credentials/@system"
    assert 'name = "in-the-lab"' in box.run(["cat", f"{credentials}/alpha-ren.config"]).stdout
    url = box.run(["cat", f"{credentials}/alpha-ren.outside-url"]).stdout
    assert url == f"https://127.0.0.1:{box.published(443)}"


def test_the_card_has_the_name_and_address_the_profile_expects(box: Machine) -> None:
    assert " enp0s2@" in box.run(["ip", "-oneline", "link", "show", "enp0s2"]).stdout
    assert "52:54:00:1a:00:00" in box.run(["ip", "-oneline", "link", "show", "enp0s2"]).stdout


def test_sysctls_of_the_network_can_be_set_and_namespaces_made(box: Machine) -> None:
    box.run(["ip", "netns", "add", "inner"])
    box.run(["ip", "netns", "exec", "inner", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
    box.run(["ip", "-netns", "inner", "tuntap", "add", "tap0", "mode", "tap"])
    box.run(["nft", "add", "table", "inet", "probe"])
    assert "table inet probe" in box.run(["nft", "list", "tables"]).stdout


def test_a_unit_gets_a_network_namespace_and_a_sandbox(box: Machine) -> None:
    box.run(["ip", "netns", "add", "sandbox"])
    said = box.run([
        "systemd-run", "--quiet", "--wait", "--pipe", "--property=NetworkNamespacePath=/run/netns/sandbox",
        "--property=DynamicUser=yes", "--property=ProtectSystem=strict", "--property=SystemCallFilter=@system-service",
        "ip", "-brief", "link",
    ]).stdout  # fmt: skip
    assert "enp0s2" not in said
    assert "lo" in said


def test_a_command_gets_input_and_its_status_comes_back(box: Machine) -> None:
    assert box.run(["cat"], stdin="through\n").stdout == "through\n"
    assert box.run(["sh", "-c", "exit 42"], check=False).returncode == 42
    assert box.run(["sh", "-c", "kill -TERM $$"], check=False).returncode == -signal.SIGTERM
    assert box.run(["no-such-command"], check=False).returncode == 127
    assert "container=systemd-nspawn" in box.run(["env"]).stdout


def test_a_command_that_takes_too_long_is_given_up(box: Machine) -> None:
    with pytest.raises(CommandFailed, match="did not end within"):
        box.run(["sleep", "infinity"], deadline_s=0.2)


def test_a_command_ends_with_the_process_that_stands_for_it(box: Machine) -> None:
    def runs_inside() -> bool:
        return "sleep 8151" in box.run(["python3", "-c", LIST_COMMANDS]).stdout.splitlines()

    process = box.popen(["sleep", "8151"])
    box.wait_for("the start of the command", runs_inside)
    process.kill()
    process.wait(30)
    box.wait_for("the end of the command", lambda: not runs_inside())


def test_signals_reach_the_command_inside(box: Machine) -> None:
    waiting = box.popen(
        ["sh", "-c", "trap 'echo heard; exit 3' TERM; echo armed; while :; do sleep 0.1; done"], stdout=subprocess.PIPE
    )
    assert waiting.stdout is not None
    with waiting:
        assert waiting.stdout.readline() == "armed\n"
        waiting.terminate()
        assert waiting.stdout.readline() == "heard\n"
    assert waiting.returncode == 3


def test_a_process_of_the_machine_can_be_killed_by_its_pid_inside(box: Machine) -> None:
    box.run(["systemd-run", "--unit=victim", "sleep", "infinity"])
    box.kill(box.main_pid("victim.service"), signal.SIGKILL)
    box.wait_for("the unit's failure", lambda: box.succeeds(["systemctl", "is-failed", "victim.service"]))
    box.run(["systemctl", "reset-failed", "victim.service"])


def test_dhcp_leases_the_known_address_and_names_resolve(lab: Lab, box: Machine) -> None:
    box.run(["dhcpcd", "--ipv4only", "--oneshot", "--timeout", "20", "enp0s2"])
    try:
        assert f"inet {box.address()}/24" in box.run(["ip", "-4", "address", "show", "enp0s2"]).stdout
        assert "default via 198.18.0.1" in box.run(["ip", "-4", "route"]).stdout
        names = "nameserver 198.18.0.1"
        assert names in lab.host("outside").run(["cat", "/etc/resolv.conf"]).stdout
        found = lab.host("outside").run(["getent", "hosts", "box.test"]).stdout
        assert found.split()[0] == box.address()
    finally:
        box.run(["ip", "address", "flush", "dev", "enp0s2"])


def test_outside_and_this_computer_reach_a_port_of_the_machine(lab: Lab, box: Machine) -> None:
    box.run(["ip", "link", "set", "enp0s2", "up"])
    box.run(["ip", "address", "add", f"{box.address()}/24", "dev", "enp0s2"])
    server = box.popen(["python3", "-c", SAY_OUTSIDE, "8080"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    read = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).status)"
    outside = lab.host("outside")
    try:
        there = [sys.executable, "-c", read, f"http://{box.address()}:8080/"]
        outside.wait_for("the server's answer", lambda: outside.succeeds(there))
        here = [sys.executable, "-c", read, f"http://127.0.0.1:{box.published(8080)}/"]
        assert subprocess.run(here, capture_output=True, text=True, timeout=30, check=True).stdout == "200\n"
    finally:
        server.terminate()
        server.wait(30)
        box.run(["ip", "address", "flush", "dev", "enp0s2"])


def test_the_journal_shows_a_units_lines_and_errors_nobody_expected(box: Machine) -> None:
    box.run(["systemd-run", "--wait", "--unit=talker", "sh", "-c", "echo all is well"])
    box.run(["systemd-cat", "--priority=err", "--identifier=lab-test", "echo", "something odd"])
    assert "all is well" in box.logs("talker.service")
    assert any("something odd" in line for line in box.unexpected_errors())
    assert not any("something odd" in line for line in box.unexpected_errors(expected=[r"^lab-test: something"]))


def test_a_name_that_is_not_in_the_topology_is_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match="no machine `outside`"):
        lab.machine("outside")

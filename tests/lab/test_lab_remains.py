"""A lab leaves nothing behind, however it ends, and labs do not touch each other."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.labs import launch, state
from scripts.labs.errors import LabError, LabExists
from scripts.labs.session import Lab
from tests.lab import plans, remains

COMMAND = str(launch.WORKING_COPY / "scripts" / "lab")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab that the test may kill."""
    running = Lab(plans.one_box())
    running.__enter__()
    yield running
    with contextlib.suppress(LabError):  # it had ended before: the test killed it
        running.close()


def test_the_end_of_the_with_block_leaves_nothing() -> None:
    with Lab(plans.one_box()) as lab:
        seen = remains.of(lab)
        assert len(seen.pidfds) > 8, "watcher, keeper, dnsmasq, host, systemd-nspawn, systemd and its daemons"
        assert len(seen.networks) == 3, "the keeper's, the box's and the host's"
        assert seen.group.is_dir()
    remains.assert_processes_end(seen)
    remains.assert_nothing_is_left(seen)


@pytest.mark.parametrize("victims", [("keeper",), ("watcher",), ("watcher", "keeper")])
def test_a_killed_lab_leaves_nothing(lab: Lab, victims: tuple[str, ...]) -> None:
    seen = remains.of(lab)
    inside = lab.host("outside").popen(["sleep", "infinity"])
    daemon = lab.machine("box").popen(["sleep", "infinity"])
    for victim in victims:
        os.kill(getattr(seen, victim), signal.SIGKILL)
    remains.assert_processes_end(seen)
    assert inside.wait(30) != 0, "what was started on a host has ended with it"
    assert daemon.wait(30) != 0, "what was started in a machine has ended with it"
    state.sweep()  # what any `scripts/lab` command begins with
    remains.assert_nothing_is_left(seen)


def test_a_lab_ends_when_the_test_that_uses_it_is_killed() -> None:
    use = (
        "from scripts.labs.session import Lab; from tests.lab import plans; import signal\n"
        "with Lab(plans.one_box()) as lab:\n    print(lab.name, flush=True)\n    signal.pause()"
    )
    user = subprocess.Popen([sys.executable, "-c", use], stdout=subprocess.PIPE, text=True, cwd=launch.WORKING_COPY)
    assert user.stdout is not None
    with user:
        seen = remains.makings(user.stdout.readline().strip())
        user.kill()
    remains.assert_processes_end(seen)
    remains.assert_nothing_is_left(seen)


def test_labs_do_not_touch_each_other() -> None:
    with Lab(plans.one_box()) as left, Lab(plans.one_box()) as right:
        boxes = left.machine("box"), right.machine("box")
        for name, box in zip(("left", "right"), boxes, strict=True):
            box.run(["sh", "-c", f"echo {name} >/var/lib/side"])
            box.run(["ip", "link", "set", "enp0s2", "up"])
            box.run(["ip", "address", "add", f"{box.address()}/24", "dev", "enp0s2"])
        assert [box.run(["cat", "/var/lib/side"]).stdout for box in boxes] == ["left\n", "right\n"]
        boxes[0].unplug()
        probe = "import socket, sys; socket.create_connection((sys.argv[1], 9), timeout=5)"
        heard = right.host("outside").run([sys.executable, "-c", probe, boxes[1].address()], check=False).stderr
        assert "ConnectionRefusedError" in heard, "the other lab's box still answers at the same address"
        lost = left.host("outside").run([sys.executable, "-c", probe, boxes[0].address()], check=False).stderr
        assert "ConnectionRefusedError" not in lost
        seen = remains.of(left)
        left.close()
        remains.assert_processes_end(seen)
        remains.assert_nothing_is_left(seen)
        assert boxes[1].run(["systemctl", "is-system-running"]).stdout == "running\n"


def test_a_second_lab_of_the_same_name_is_refused() -> None:
    with Lab(plans.only_hosts()) as lab:
        with pytest.raises(Exception, match="is up already") as caught:
            Lab(plans.only_hosts(), name=lab.name).__enter__()
        assert caught.value.problem.code == LabExists.code  # type: ignore[attr-defined] # an ApplianceError
        assert lab.host("west").run(["hostname"]).stdout == "west\n"


def test_the_command_starts_a_lab_that_stays_and_stops_it(tmp_path: Path) -> None:
    name = f"cli-{os.getpid()}"
    topology = tmp_path / "hosts.toml"
    topology.write_text('[[lan]]\nname = "uplink"\n[[host]]\nname = "outside"\nlans = ["uplink"]\n', encoding="utf-8")

    def lab(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, *words], capture_output=True, text=True, timeout=60, check=False)

    up = lab("up", "--name", name, str(topology))
    try:
        assert up.returncode == 0, up.stderr
        assert f"scripts/lab exec --name {name} outside -- bash" in up.stdout
        seen = remains.makings(name)
        assert f"Lab `{name}`" in lab("ls").stdout
        assert lab("exec", "--name", name, "outside", "--", "hostname").stdout == "outside\n"
        assert lab("exec", "--name", name, "outside", "--", "sh", "-c", "exit 7").returncode == 7
    finally:
        down = lab("down", "--name", name)
    assert down.returncode == 0, down.stderr
    remains.assert_processes_end(seen)
    remains.assert_nothing_is_left(seen)
    assert "[lab-not-found]" in lab("down", "--name", name).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_lab_in_the_foreground_stops_when_told_to(number: signal.Signals) -> None:
    name = f"fore-{os.getpid()}-{number}"
    command = subprocess.Popen(
        [COMMAND, "up", "--foreground", "--name", name, str(Path(__file__).parent / "hosts.toml")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    with command:
        for line in command.stdout:
            if "scripts/lab down" in line:
                break
        seen = remains.makings(name)
        command.send_signal(number)
        assert "The lab is down." in command.stdout.read()
    assert command.returncode == 0
    remains.assert_processes_end(seen)
    remains.assert_nothing_is_left(seen)


def test_a_topology_that_is_wrong_starts_nothing(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[[lan]]\nname = "uplink"\ncolour = "red"\n', encoding="utf-8")
    before = state.names()
    refused = subprocess.run([COMMAND, "up", str(wrong)], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "colour" in refused.stderr
    assert "[invalid-topology]" in refused.stderr
    assert state.names() == before

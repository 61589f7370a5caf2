"""Servers as virtual machines: real guests of the firmware's own /usr, emulated, through their whole life."""

import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from tests.lab.box import Box, started, with_guests
from tests.lab.supervised import SUPERVISOR, apply, cursor, plan, processes, settled
from tests.lab.systems import Record, http_target, post, running, wait_until

TARGET_PORT = 8080
GUEST_S = 300.0
"""For a guest to start on a machine that emulates two of them and does other things."""
NAMES = ("arsrv-1", "arsrv-2")

VM = f'[arsrv]\negress_ports = [80, 443, {TARGET_PORT}]\nisolation = "vm"\n'
NAMESPACE = VM.replace('"vm"', '"namespace"')


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that is ready, with an outside host beside it; its servers begin in namespaces and became guests."""
    settings = config.Config(arsrv=config.Arsrv(egress_ports=(80, 443, TARGET_PORT), isolation="namespace"))
    with started(settings, plan=with_guests()) as box:
        apply(box, VM)
        wait_both(box)
        yield box


def unit(name: str) -> str:
    """The unit of a guest's keeper."""
    return f"alpha-ren-{name}-vm.service"


def guests(box: Box) -> dict[str, str]:
    """The state of each guest."""
    found: dict[str, Any] = json.loads(box.machine.run(["alpha-ren", "guest", "--json"]).stdout)
    return {each["instance"]: each["state"] for each in found["guests"]}


def said(box: Box, name: str, *options: str) -> str:
    """What the journal of the box has of a guest and its keeper."""
    return box.machine.run(["journalctl", "-u", unit(name), "-o", "cat", *options]).stdout


def times_served(box: Box, name: str) -> int:
    """How often a guest has begun to serve."""
    return said(box, name).count("serves after")


def emulator(box: Box, name: str) -> int:
    """The process of a guest's QEMU."""
    keeper = box.machine.main_pid(unit(name))
    return int(box.machine.run(["cat", f"/proc/{keeper}/task/{keeper}/children"]).stdout.split()[0])


def at_work_as_guests(box: Box) -> bool:
    """Whether both servers are guests that run, and nothing is left to do."""
    return guests(box) == dict.fromkeys(NAMES, "running") and settled(box)


def in_namespaces(box: Box) -> bool:
    """Whether no server is a guest, and nothing is left to do."""
    return guests(box) == {} and settled(box)


def wait_both(box: Box) -> None:
    """Wait until both servers are guests at work."""
    wait_until("both servers are guests at work", lambda: at_work_as_guests(box), GUEST_S)
    box.wait_ready()


def assert_moved_one_after_the_other(box: Box, place: str) -> None:
    """Between the going of one server and that of the other, the first was found to be up again."""
    argv = ["journalctl", "-o", "cat", f"--after-cursor={place}", "-u", SUPERVISOR, "-u", "alpha-ren-arhav.service"]
    text = box.machine.run(argv).stdout
    first, second = re.findall(r"reconcile: remove unit alpha-ren-(arsrv-\d)(?:-vm)?\.service", text)
    between = text.partition(f"remove unit alpha-ren-{first}")[2].partition(f"remove unit alpha-ren-{second}")[0]
    assert f"{first} is down" in between
    assert f"{first} is up" in between.partition(f"{first} is down")[2]


def presence(box: Box, name: str) -> str:
    """What ARHAV says of a server."""
    ranks = {rank["name"]: rank["presence"] for rank in box.console.picture()["order"]["ranks"]}
    return str(ranks[name])


def test_a_server_boots_joins_and_tells_its_journal_and_how_long_each_part_took(box: Box) -> None:
    wait_both(box)
    for name in NAMES:
        text = said(box, name)
        assert re.search(r"serves after \d+\.\d s, \d+\.\d s of them since its kernel began", text)
        inside = said(box, name, f"ALPHA_REN_GUEST={name}")
        assert "joined the cluster at revision" in inside


def test_a_message_is_taken_and_delivered_by_guests(box: Box, tmp_path: Path) -> None:
    url = f"http://{box.outside.address()}:{TARGET_PORT}/orders"
    box.put_flow({"name": "orders", "steps": [], "deliver": {"kind": "http", "url": url}})
    record = Record(tmp_path / "target")
    with http_target(box.outside, record):
        keys = {post(box.outside, box.hook("orders"), json.dumps({"n": n})).json()["id"] for n in range(8)}
        record.wait_for(8)
        box.wait_at_rest("orders")
    assert {line["key"] for line in record.lines()} == keys
    assert {line["peer"] for line in record.lines()} == {box.address}


def test_a_supervisor_that_starts_anew_disturbs_no_guest(box: Box) -> None:
    wait_both(box)
    before = processes(box)
    box.machine.kill(box.machine.main_pid(SUPERVISOR), signal.SIGKILL)
    wait_until("a supervisor answers", lambda: box.machine.succeeds(["alpha-ren", "status"]), 60.0)
    wait_both(box)
    assert processes(box) == before


def test_a_guest_that_is_held_is_seen_as_down_and_goes_on_where_it_was(box: Box) -> None:
    wait_both(box)
    before = processes(box)
    box.machine.run(["alpha-ren", "guest", "pause", "arsrv-1"])
    assert guests(box) == {"arsrv-1": "paused", "arsrv-2": "running"}
    wait_until("it is missed", lambda: presence(box, "arsrv-1") == "down")
    box.machine.run(["alpha-ren", "guest", "resume", "arsrv-1"])
    wait_until("it is back", lambda: presence(box, "arsrv-1") == "up")
    assert guests(box) == dict.fromkeys(NAMES, "running")
    assert processes(box) == before
    refused = box.machine.run(["alpha-ren", "guest", "pause", "queue"], check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("not-found: "), refused.stderr


def test_an_emulator_that_is_killed_and_a_cable_that_is_taken_come_back_with_their_guests(box: Box) -> None:
    wait_both(box)
    before, served = processes(box), {name: times_served(box, name) for name in NAMES}
    box.machine.kill(emulator(box, "arsrv-1"), signal.SIGKILL)
    box.machine.run(["nsenter", "--net=/run/netns/arsrv-2", "ip", "link", "del", "vm"])
    wait_until(
        "both guests serve again", lambda: all(times_served(box, name) > served[name] for name in NAMES), GUEST_S
    )
    wait_both(box)
    assert {name for name, pid in processes(box).items() if pid != before[name]} == {unit(name) for name in NAMES}
    assert "[guest-ended]" in said(box, "arsrv-1")
    assert "has lost its cable" in said(box, "arsrv-2")


def test_powering_down_lets_the_server_end_its_work_within_the_deadline(box: Box) -> None:
    wait_both(box)
    box.machine.run(["systemctl", "stop", unit("arsrv-1")], deadline_s=60)
    last = said(box, "arsrv-1", "-n", "60")
    assert "Stopped alpha-ren-guest-server.service" in last
    assert "is ended" not in last, "the plug was not pulled"
    assert box.machine.run(["systemctl", "show", "-P", "Result", unit("arsrv-1")]).stdout.strip() == "success"
    # Nobody asked the supervisor for it, so it is drift.
    wait_both(box)


def test_moving_servers_from_form_to_form_and_back_under_load_loses_nothing(box: Box, tmp_path: Path) -> None:
    url = f"http://{box.outside.address()}:{TARGET_PORT}/moving"
    box.put_flow({"name": "moving", "deliver": {"kind": "http", "url": url, "timeout_s": 30}})
    wait_both(box)
    record = Record(tmp_path / "target")
    with http_target(box.outside, record):
        with running(box.outside, "steady.py", box.address, "/hooks/moving") as traffic:
            record.wait_for(20)
            for text, there in ((NAMESPACE, in_namespaces), (VM, at_work_as_guests)):
                place = cursor(box)
                apply(box, text)
                wait_until("both have moved", partial(there, box), GUEST_S)
                assert_moved_one_after_the_other(box, place)
            traffic.terminate()
            assert traffic.stdout is not None
            report = json.loads(traffic.stdout.readline())
        box.wait_at_rest("moving")
    # On a machine that is busy with emulation a server may be too slow for the proxy: a client is told to come back.
    assert [each for each in report["lost"] if not each.endswith(": 503")] == []
    delivered = {json.loads(line["body"])["n"] for line in record.lines()}
    assert delivered == {number for number, _ in report["taken"]}
    assert plan(box) == []


def test_at_the_end_the_journal_has_no_error_that_was_not_provoked(box: Box) -> None:
    provoked = (r"guest-ended", r"Main process exited, code=exited, status=1", r"Failed with result 'exit-code'")
    assert box.machine.unexpected_errors(provoked) == []

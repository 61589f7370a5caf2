"""The supervisor dies at the worst moments: whatever it left is finished, and nobody who uses the box notices."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance import config
from tests.lab import one_step
from tests.lab.box import Box, started
from tests.lab.supervised import SUPERVISOR, cursor, processes, steps_since, wait_settled
from tests.lab.systems import Record, http_target, running, wait_until

TARGET_PORT = 8080
RESTARTS = 3
DROP_IN = f"/run/systemd/system/{SUPERVISOR}.d/90-test.conf"
SCRIPT = "/run/one_step.py"
ONE_STEP = f"""\
[Service]
NotifyAccess=all
WatchdogSec=0
ExecStart=
ExecStart=/usr/bin/python3 {SCRIPT}
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that is ready, set up and logged in to, with an outside host beside it."""
    settings = config.Config(arsrv=config.Arsrv(egress_ports=(80, 443, TARGET_PORT)))
    with started(settings) as box:
        yield box


def put(box: Box, path: str, content: str) -> None:
    """Put a file into the box."""
    box.machine.run(["sh", "-c", f"mkdir -p $(dirname {path}) && cat > {path}"], stdin=content)


def started_anew(box: Box) -> None:
    """Restart the supervisor with the unit as it is now."""
    box.machine.run(["sh", "-c", f"systemctl daemon-reload && systemctl restart {SUPERVISOR}"], deadline_s=60)


@contextmanager
def one_step_at_a_time(box: Box) -> Iterator[None]:
    """Let the supervisor be killed after every step."""
    put(box, SCRIPT, Path(one_step.__file__).read_text())
    put(box, DROP_IN, ONE_STEP)
    started_anew(box)
    try:
        yield
    finally:
        box.machine.run(["rm", DROP_IN])
        started_anew(box)


def deaths(box: Box, place: str) -> int:
    """How often the supervisor was killed after a step since a place in the journal."""
    argv = ["journalctl", "-u", SUPERVISOR, "-o", "cat", f"--after-cursor={place}"]
    return box.machine.run(argv).stdout.splitlines().count(one_step.ENDED)


def nothing_left(box: Box) -> bool:
    """Whether there is a supervisor alive, and it has nothing to do."""
    done = box.machine.run(["alpha-ren", "plan", "--json"], check=False)
    return done.returncode == 0 and json.loads(done.stdout)["steps"] == []


GONE = "(nobody declares it)"
MORE = (
    "make namespace arsrv-3",
    "make veth arsrv-3/cluster",
    "write 2 units",
    "start unit alpha-ren-arsrv-3.service (it is inactive)",
)
LESS = (f"remove unit alpha-ren-arsrv-3.service {GONE}", f"remove namespace arsrv-3 {GONE}")


@pytest.mark.parametrize(("number", "some"), [(3, MORE), (2, LESS)], ids=["a server more", "a server less"])
def test_an_apply_is_finished_by_supervisors_that_live_for_one_step_each(
    box: Box, number: int, some: tuple[str, ...]
) -> None:
    wait_settled(box)
    before, place = processes(box), cursor(box)
    settings = f"[arsrv]\ncount = {number}\negress_ports = [80, 443, {TARGET_PORT}]\n"
    with one_step_at_a_time(box):
        put(box, "/tmp/config.toml", settings)
        # Whoever is asked does not live to answer.
        asking = box.machine.popen(["alpha-ren", "apply", "/tmp/config.toml"], stderr=subprocess.DEVNULL)
        wait_until("the steps are taken", lambda: set(some) <= set(steps_since(box, place)), 240.0)
        wait_until("nothing is left to do", lambda: nothing_left(box), 240.0)
        asking.kill()
        asking.wait(10)
        assert deaths(box, place) > 10
    place = cursor(box)
    wait_settled(box)
    assert [step for step in steps_since(box, place) if "wireguard" not in step] == []
    after = processes(box)
    assert set(after) ^ set(before) == {"alpha-ren-arsrv-3.service"}
    assert {name for name in set(after) & set(before) if after[name] != before[name]} == set()
    box.wait_ready()


def restart(box: Box, number: int) -> tuple[float, float]:
    """End the supervisor by a signal; return when that was, and when the next one answered."""
    old = box.machine.main_pid(SUPERVISOR)
    began = time.time()
    box.machine.kill(old, number)
    wait_until(
        "another supervisor answers",
        lambda: box.machine.main_pid(SUPERVISOR) not in (0, old) and box.machine.succeeds(["alpha-ren", "status"]),
        60.0,
    )
    return began, time.time()


def test_under_steady_traffic_no_connection_is_lost_by_its_restart(box: Box, tmp_path: Path) -> None:
    url = f"http://{box.outside.address()}:{TARGET_PORT}/steady"
    box.put_flow({"name": "steady", "deliver": {"kind": "http", "url": url, "timeout_s": 30}})
    wait_settled(box)
    before, record = processes(box), Record(tmp_path / "target")
    with http_target(box.outside, record):
        with running(box.outside, "steady.py", box.address, "/hooks/steady") as traffic:
            record.wait_for(20)
            spans = [restart(box, number) for number in (signal.SIGTERM, signal.SIGKILL) * RESTARTS]
            wait_settled(box)
            traffic.terminate()
            assert traffic.stdout is not None
            said = json.loads(traffic.stdout.readline())
        box.wait_at_rest("steady")
    assert said["lost"] == []
    for began, ended in spans:
        assert any(began < at < ended for _, at in said["taken"])
    delivered = {json.loads(line["body"])["n"] for line in record.lines()}
    assert delivered == {number for number, _ in said["taken"]}
    assert processes(box) == before

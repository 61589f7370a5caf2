"""The cluster on a whole box: who is up, what outlasts a power cut, and where deliveries may not go."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from tests.lab.box import Box, started
from tests.lab.systems import Record, http_target, post, wait_until

TARGET_PORT = 8080
INSIDE = ("10.156.16.1", "10.156.16.2", "[fd9c:156:0:1::2]", "127.0.0.1", "queue.main.lan.alpha-ren.internal")


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that is ready, set up and logged in to, with an outside host beside it."""
    with started(config.Config(arsrv=config.Arsrv(egress_ports=(80, 443, TARGET_PORT)))) as box:
        yield box


def put(box: Box, name: str, url: str, *, attempts: int = 1000) -> None:
    """Put a flow that delivers to `url`."""
    retry = {"attempts": attempts, "first_s": 0.1, "max_s": 0.5}
    box.put_flow({"name": name, "deliver": {"kind": "http", "url": url, "retry": retry}})


def presences(box: Box) -> dict[str, str]:
    """Return who is up and who is down, as the console shows it."""
    order: dict[str, Any] | None = box.console.picture()["order"]
    return {rank["name"]: rank["presence"] for rank in order["ranks"]} if order else {}


def last_words(box: Box, flow: str) -> list[str]:
    """Return why messages of a flow became dead letters."""
    recent = box.console.picture()["recent"]
    return [each["reason"] for each in recent if f"flow.{flow}." in each["address"] and each["state"] == "dead"]


def test_a_server_that_is_killed_is_down_and_messages_go_through_the_other(box: Box, tmp_path: Path) -> None:
    put(box, "orders", f"http://{box.outside.address()}:{TARGET_PORT}/")
    wait_until("both servers are up", lambda: presences(box) == {"arsrv-1": "up", "arsrv-2": "up"})
    box.keep_down_when_killed("arsrv-1")
    box.kill("arsrv-1", signal.SIGKILL)
    wait_until("the killed server is down", lambda: presences(box) == {"arsrv-1": "down", "arsrv-2": "up"})
    record = Record(tmp_path / "target")
    with http_target(box.outside, record):
        assert {post(box.outside, box.hook("orders"), "{}").status for _ in range(4)} == {202}
        record.wait_for(4)
    box.let_restart("arsrv-1")
    wait_until("both servers are up", lambda: presences(box) == {"arsrv-1": "up", "arsrv-2": "up"})


@pytest.mark.parametrize("host", INSIDE)
def test_a_users_flow_does_not_get_into_the_box(box: Box, host: str) -> None:
    name = f"inward-{INSIDE.index(host)}"
    put(box, name, f"http://{host}/")
    assert post(box.outside, box.hook(name), "{}").status == 202
    wait_until("the message is a dead letter", lambda: bool(last_words(box, name)))
    assert "inside the box" in last_words(box, name)[0]


def test_the_built_in_flow_does_not_exist_for_the_outside(box: Box) -> None:
    for forged in ((), ("X-Forwarded-For: 10.156.16.4",), ("X-Alpha-Ren-Request: mine",)):
        answer = post(box.outside, box.hook("_selftest"), '{"nonce": "x"}', headers=forged)
        assert (answer.status, answer.json()["code"]) == (404, "unknown-flow")


def test_flows_logins_and_messages_outlast_a_power_cut(box: Box, tmp_path: Path) -> None:
    put(box, "kept", f"http://{box.outside.address()}:{TARGET_PORT}/")
    answers = [post(box.outside, box.hook("kept"), "{}") for _ in range(5)]
    assert {answer.status for answer in answers} == {202}
    box.machine.unplug()
    box.machine.start()
    record = Record(tmp_path / "target")
    with http_target(box.outside, record):
        wait_until(
            "every message is delivered",
            lambda: {line["key"] for line in record.lines()} == {answer.json()["id"] for answer in answers},
            90,
        )
    box.wait_ready()
    names = [flow["name"] for flow in box.console.get("/portal/api/flows").json()["flows"]]
    assert "kept" in names, "the session still holds, and the flow is known"

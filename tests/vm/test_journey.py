"""The main job on the real image: a message comes in through 443 and is delivered to another system."""

import json
import re
import time
from typing import Any

import pytest

from tests.console import ConsoleClient
from tests.vm.conftest import Surroundings, patiently, post
from tests.vm.driver import OUTSIDE_HOST, VirtualMachine

DELIVERY_DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def flow(machine: VirtualMachine, admin: ConsoleClient, surroundings: Surroundings) -> str:
    """A flow from a webhook over one step to the outside HTTP server, added through the portal."""
    document: dict[str, Any] = {
        "name": "orders",
        "steps": [{"kind": "set", "path": "checked", "value": True}],
        "deliver": {
            "kind": "http",
            "url": f"http://{OUTSIDE_HOST}:{surroundings.target.port}/in",
            "retry": {"attempts": 60, "first_s": 0.5, "max_s": 2.0},
        },
    }
    answer = patiently(lambda: admin.put_flow(document))
    assert answer.status == 200, answer.body
    probe_until_both_servers_know("orders", machine, surroundings)
    return "orders"


def probe_until_both_servers_know(flow: str, machine: VirtualMachine, surroundings: Surroundings) -> None:
    """Send messages until several in a row are taken (the proxy takes turns); return when all taken are delivered."""
    before = len(surroundings.target.taken())
    taken = row = 0
    end = time.monotonic() + DELIVERY_DEADLINE_S
    while row < 4:
        assert time.monotonic() < end, "the servers did not hear of the flow"
        row = row + 1 if post(machine, flow, {"probe": taken}) == 202 else 0
        taken += row > 0
    surroundings.target.wait_for(before + taken, DELIVERY_DEADLINE_S)


def taken_with(surroundings: Surroundings, field: str, value: Any) -> list[dict[str, Any]]:
    """The deliveries whose body has `field` set to `value`."""
    return [one for one in surroundings.target.taken() if json.loads(one["body"]).get(field) == value]


def test_a_message_from_outside_is_delivered_to_an_outside_server(
    machine: VirtualMachine, flow: str, surroundings: Surroundings
) -> None:
    before = len(surroundings.target.taken())
    assert post(machine, flow, {"order": 1}) == 202
    delivered = surroundings.target.wait_for(before + 1, DELIVERY_DEADLINE_S)[-1]
    assert json.loads(delivered["body"]) == {"order": 1, "checked": True}
    assert delivered["key"]


def test_a_server_that_was_down_gets_the_message_once_when_it_is_back(
    machine: VirtualMachine, flow: str, surroundings: Surroundings
) -> None:
    before = len(surroundings.target.taken())
    surroundings.target.down()
    try:
        assert post(machine, flow, {"order": 2}) == 202
        machine.wait_for("journalctl -b -o cat | grep -q 'flow orders: Attempt 1 '", DELIVERY_DEADLINE_S)
        assert len(surroundings.target.taken()) == before
    finally:
        surroundings.target.up()
    surroundings.target.wait_for(before + 1, DELIVERY_DEADLINE_S)
    # A later message is the sign that nothing of the earlier one is still to come.
    assert post(machine, flow, {"order": 3}) == 202
    surroundings.target.wait_for(before + 2, DELIVERY_DEADLINE_S)
    assert len(taken_with(surroundings, "order", 2)) == 1


def test_a_message_survives_that_broker_and_server_are_killed(
    machine: VirtualMachine, flow: str, surroundings: Surroundings
) -> None:
    surroundings.target.down()
    try:
        before = len(surroundings.target.taken())
        assert post(machine, flow, {"order": 4}) == 202
        for unit in ("alpha-ren-queue.service", "alpha-ren-arsrv-1.service"):
            machine.output("systemctl", "kill", "--signal=KILL", unit)
            machine.wait_for(f"[ $(systemctl show -P NRestarts {unit}) -ge 1 ] && systemctl -q is-active {unit}", 180)
    finally:
        surroundings.target.up()
    surroundings.target.wait_for(before + 1, 2 * DELIVERY_DEADLINE_S)
    delivered = taken_with(surroundings, "order", 4)
    # At least once, and always under the same key.
    assert len({one["key"] for one in delivered}) == 1


def test_a_dead_letter_becomes_a_mail(
    machine: VirtualMachine, admin: ConsoleClient, flow: str, surroundings: Surroundings
) -> None:
    url = f"http://{OUTSIDE_HOST}:{surroundings.target.port}/in"
    document = {"name": "doomed", "deliver": {"kind": "http", "url": url, "retry": {"attempts": 1}}}
    mails = len(surroundings.smarthost.taken())
    assert patiently(lambda: admin.put_flow(document)).status == 200
    probe_until_both_servers_know("doomed", machine, surroundings)
    surroundings.target.down()
    try:
        assert post(machine, "doomed", {"order": 5}) == 202
        mail = surroundings.smarthost.wait_for(mails + 1, 2 * DELIVERY_DEADLINE_S)[-1]
    finally:
        surroundings.target.up()
    assert mail["to"] == ["ops@example.org"]
    assert "doomed" in mail["subject"] + mail["body"]


def test_an_unknown_flow_is_not_found(machine: VirtualMachine) -> None:
    assert post(machine, "nobody-knows-this", {}) == 404


def test_port_80_sends_a_browser_to_the_outside_url(machine: VirtualMachine) -> None:
    answer = ConsoleClient(f"http://127.0.0.1:{machine.forwards.http.host_port}", timeout_s=60).get("/")
    assert answer.status in (301, 302, 307, 308)
    assert re.match(r"https://", {name.lower(): value for name, value in answer.headers.items()}["location"])


def test_the_wrong_pairing_code_does_not_set_a_password(machine: VirtualMachine, admin: ConsoleClient) -> None:
    answer = ConsoleClient(machine.url, timeout_s=60).set_up("AAAA-AAAA", "another password")
    assert answer.status >= 400
    assert admin.get("/portal/api/flows").status == 200

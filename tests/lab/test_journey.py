"""The journey of a message: in through 443, through a flow, out to another system, whatever fails on the way."""

import base64
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from scripts.labs import topology
from tests.console import PASSWORD, ConsoleClient
from tests.lab.box import Box, started
from tests.lab.systems import Record, http_target, post, smtp_sink, wait_until

TARGET_PORT = 8080
MAIL_PORT = 2525


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that is ready, set up and logged in to, with an outside host beside it."""
    plan = topology.default()
    outside = topology.address(plan, "outside", "uplink")
    settings = config.Config(
        machine=config.Machine(name="box"),
        arsrv=config.Arsrv(egress_ports=(80, 443, TARGET_PORT)),
        mail=config.Mail(
            smarthost=f"{outside}:{MAIL_PORT}", sender="box@example.org", recipients=("ops@example.org",)
        ),
    )
    with started(settings) as box:
        yield box


def flow(box: Box, name: str, *, attempts: int = 50, **more: Any) -> None:
    """Put a flow that delivers to the outside host."""
    document = {
        "name": name,
        "deliver": {
            "kind": "http",
            "url": f"http://{box.outside.address()}:{TARGET_PORT}/{name}",
            "timeout_s": 30,
            "retry": {"attempts": attempts, "first_s": 0.1, "max_s": 0.5},
        },
        **more,
    }
    box.put_flow(document)


def test_a_message_from_outside_goes_through_its_steps_and_is_delivered(box: Box, tmp_path: Path) -> None:
    steps = [{"kind": "filter", "where": "total > `1`"}, {"kind": "set", "path": "checked.by", "value": "box"}]
    flow(box, "orders", steps=steps)
    record = Record(tmp_path / "target")
    with http_target(box.outside, record):
        assert post(box.outside, box.hook("orders"), '{"total": 1}').status == 202
        answer = post(box.outside, box.hook("orders"), '{"total": 3}')
        assert answer.status == 202
        [delivered] = record.wait_for(1)
        box.wait_at_rest("orders")
    assert delivered["path"] == "/orders"
    assert delivered["body"] == '{"total":3,"checked":{"by":"box"}}'
    assert delivered["key"] == answer.json()["id"]
    assert delivered["type"].startswith("application/json")
    assert delivered["peer"] == box.address, "the box is one address to the outside"
    assert len(record.lines()) == 1, "the filtered message ended at the filter"


def test_a_target_that_is_down_gets_the_message_once_when_it_is_back(box: Box, tmp_path: Path) -> None:
    flow(box, "later")
    record = Record(tmp_path / "target")
    answer = post(box.outside, box.hook("later"), '{"n": 1}')
    assert answer.status == 202
    box.wait_for_attempts("later", 3)
    with http_target(box.outside, record):
        record.wait_for(1)
        box.wait_at_rest("later")
    assert [line["key"] for line in record.lines()] == [answer.json()["id"]]


def test_a_target_that_refuses_is_tried_again_under_the_same_key(box: Box, tmp_path: Path) -> None:
    flow(box, "moody")
    record = Record(tmp_path / "target")
    with http_target(box.outside, record, "500"):
        assert post(box.outside, box.hook("moody"), "{}").status == 202
        record.wait_for(2)
    with http_target(box.outside, record):
        box.wait_at_rest("moody")
    assert len({line["key"] for line in record.lines()}) == 1


def test_a_server_killed_in_mid_message_leaves_it_to_the_other(box: Box, tmp_path: Path) -> None:
    flow(box, "stubborn")
    record = Record(tmp_path / "target")
    with http_target(box.outside, record, "hang-first"):
        answer = post(box.outside, box.hook("stubborn"), "{}")
        assert answer.status == 202
        record.wait_for(1)
        holder = box.server_connected_to(box.outside.address())
        box.keep_down_when_killed(holder)
        box.kill(holder, signal.SIGKILL)
        first, second = record.wait_for(2, deadline_s=60)[:2]
        box.wait_at_rest("stubborn")
    box.let_restart(holder)
    assert first["key"] == second["key"] == answer.json()["id"]
    assert len(record.lines()) == 2
    box.wait_ready()


def test_a_broker_killed_after_the_answer_loses_nothing(box: Box, tmp_path: Path) -> None:
    flow(box, "durable")
    record = Record(tmp_path / "target")
    answers = [post(box.outside, box.hook("durable"), f'{{"n": {n}}}') for n in range(5)]
    assert {answer.status for answer in answers} == {202}
    box.kill("queue", signal.SIGKILL)
    with http_target(box.outside, record):
        wait_until(
            "every message is delivered",
            lambda: {line["key"] for line in record.lines()} == {answer.json()["id"] for answer in answers},
            60,
        )
    box.wait_ready()


def test_a_dead_letter_reaches_a_person_by_mail(box: Box, tmp_path: Path) -> None:
    flow(box, "doomed", attempts=2)
    mails = Record(tmp_path / "mails")
    with smtp_sink(box.outside, mails, MAIL_PORT):
        answer = post(box.outside, box.hook("doomed"), "{}")
        assert answer.status == 202
        [mail] = mails.wait_for(1, deadline_s=60)
    assert mail["to"] == ["ops@example.org"]
    assert mail["from"] == "box@example.org"
    assert "doomed" in mail["subject"] + mail["body"]
    assert answer.json()["id"] in mail["body"]


def test_an_operator_requeues_a_dead_letter_and_it_is_delivered(box: Box, tmp_path: Path) -> None:
    flow(box, "revived", attempts=1)
    answer = post(box.outside, box.hook("revived"), '{"total": 3}')
    assert answer.status == 202

    def dead() -> list[dict[str, Any]]:
        listed = box.machine.run(["alpha-ren", "queue", "dead", "flow.revived.*", "--json"]).stdout
        letters: list[dict[str, Any]] = json.loads(listed)["messages"]
        return letters

    wait_until("the message is a dead letter", lambda: len(dead()) == 1)
    [letter] = dead()
    shown = box.machine.run(["alpha-ren", "queue", "peek", str(letter["seq"])]).stdout
    assert '"total": 3' in shown
    assert letter["reason"] in shown
    record = Record(tmp_path / "target")
    with http_target(box.outside, record):
        done = box.machine.run(["alpha-ren", "queue", "requeue", "flow.revived.*"]).stdout
        assert done == "1 message requeued.\n"
        [delivered] = record.wait_for(1)
        box.wait_at_rest("revived")
    assert delivered["key"] == answer.json()["id"]
    assert dead() == []


def test_the_figures_are_scraped_from_outside_by_name_and_password(box: Box) -> None:
    scraper = ConsoleClient(box.console.url)
    assert scraper.get("/metrics").status == 401
    password = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    scraped = scraper.request("GET", "/metrics", headers={"Authorization": f"Basic {password}"})
    assert scraped.status == 200
    assert b"\nalpha_ren_queue_busy 0\n" in scraped.body


def test_the_queue_of_a_running_box_is_backed_up_found_sound_and_restored(box: Box) -> None:
    backup = "/var/lib/alpha-ren/queue-backup.sqlite"
    assert backup in box.machine.run(["alpha-ren", "queue", "backup", backup]).stdout
    head = box.machine.run(["head", "-c", "15", backup]).stdout
    assert head == "SQLite format 3"
    assert box.machine.run(["alpha-ren", "queue", "check"]).stdout == "The store is sound.\n"
    flow(box, "since", attempts=1)
    assert post(box.outside, box.hook("since"), "{}").status == 202
    wait_until("a message has come in since", lambda: bool(box.depths("since")))
    restored = box.machine.run(["alpha-ren", "queue", "restore", backup, "--yes"], deadline_s=120).stdout
    assert restored.startswith(f"The queue is what {backup} holds.")
    box.wait_ready()
    wait_until("the broker answers", lambda: box.machine.run(["alpha-ren", "queue"], check=False).returncode == 0, 60)
    assert box.depths("since") == []


def test_a_clients_own_idempotency_key_makes_its_retry_one_message(box: Box, tmp_path: Path) -> None:
    flow(box, "keyed")
    record = Record(tmp_path / "target")
    with http_target(box.outside, record):
        first = post(box.outside, box.hook("keyed"), "{}", headers=("Idempotency-Key: order-17",))
        again = post(box.outside, box.hook("keyed"), "{}", headers=("Idempotency-Key: order-17",))
        assert (first.status, again.status) == (202, 202)
        assert first.json()["id"] == again.json()["id"]
        record.wait_for(1)
        box.wait_at_rest("keyed")
    assert len(record.lines()) == 1


def test_what_is_no_message_is_refused_with_code_sentence_and_hint(box: Box) -> None:
    unknown = post(box.outside, box.hook("nobody"), "{}")
    assert unknown.status == 404
    assert set(unknown.json()) >= {"code", "message", "hint"}

    flow(box, "small", trigger={"kind": "webhook", "max_bytes": 100})
    large = post(box.outside, box.hook("small"), '"' + "x" * 200 + '"')
    assert large.status == 413
    assert set(large.json()) >= {"code", "message", "hint"}


def test_an_invalid_flow_changes_nothing(box: Box) -> None:
    before = box.console.get("/portal/api/flows").json()
    for document in (
        {"name": "bad", "deliver": {"kind": "http", "url": "http://x/"}, "colour": "red"},
        {"name": "bad", "deliver": {"kind": "http", "url": "not a url"}},
        {"name": "bad", "deliver": {"kind": "http", "url": "http://x/"}, "steps": [{"kind": "filter", "where": "((("}]},
        {"name": "_own", "deliver": {"kind": "http", "url": "http://x/"}},
    ):
        answer = box.console.put_flow(document)
        assert answer.status in (400, 403), document
        assert {"code", "message", "hint"} <= set(answer.json())
    assert box.console.get("/portal/api/flows").json() == before


def test_while_the_queue_is_away_senders_are_told_to_come_back(box: Box) -> None:
    flow(box, "patient")
    box.keep_down_when_killed("queue")
    box.kill("queue", signal.SIGKILL)
    answer = post(box.outside, box.hook("patient"), "{}")
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert {"code", "message"} <= set(answer.json())
    box.let_restart("queue")
    wait_until("messages are taken again", lambda: post(box.outside, box.hook("patient"), "{}").status == 202, 60)
    box.wait_ready()


def test_who_is_not_logged_in_changes_nothing(box: Box) -> None:
    stranger = ConsoleClient(box.console.url)
    document = {"name": "intruder", "deliver": {"kind": "http", "url": "http://192.0.2.1/"}}
    assert stranger.put_flow(document).status == 401
    assert stranger.log_in("wrong password").status in (401, 403, 429)
    forged = box.console.request("PUT", "/portal/api/flows/intruder", b"{}")
    assert forged.status == 403, "a request without the XSRF token is refused"
    assert "intruder" not in [flow["name"] for flow in box.console.get("/portal/api/flows").json()["flows"]]


def test_nothing_but_443_and_80_answers_the_outside(box: Box) -> None:
    assert box.open_ports() == {80, 443}


def test_at_the_end_no_unit_has_failed_and_the_journal_is_clean(box: Box) -> None:
    failed = box.machine.run(["systemctl", "list-units", "--failed", "--no-legend", "--plain"]).stdout
    assert failed == ""
    assert box.unexpected_errors() == []

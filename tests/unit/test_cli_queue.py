"""`alpha-ren queue`: what it asks of the broker, through the supervisor, and what it says."""

import io
import json
import os

import msgspec
import pytest

from appliance.contracts.bridge import RoutesStatus, RouteStatus
from appliance.contracts.letters import CALLS, Browse, Changed, Letter, Line, Peek, Purge, Requeue
from appliance.contracts.traffic import Depth, Message, Messages, QueueStats, RecentQuery
from appliance.errors import Problem
from appliance.queue.onward import UNCOUNTED
from appliance.queue.preview import kind_of
from tests.unit.supervisor.queue_asked import Reply, Supervisor

STATS = QueueStats(
    at=0.0,
    broker="lan/main",
    depths=(
        Depth(address="flow.orders.0", ready=3, leased=1, dead=2, done_total=9, consumers=2, bytes=2048),
        Depth(address="notice.mail", dead=1),
    ),
    clients=("arsrv-1",),
    sessions=1,
    bytes=5 * 2**20,
    disk_free=2**30,
    commits=4,
    commit_s=0.008,
    turns=77,
)


def message(seq: int, **more: object) -> Message:
    fields: dict[str, object] = {
        "seq": seq, "id": f"id-{seq}", "origin": "arsrv", "address": "flow.orders.0", "state": "dead", "attempt": 8,
        "max_attempts": 8, "size": 12, "published_at": 1_790_000_000.0, "changed_at": 1_790_000_100.0,
        "holder": "arsrv-1", "reason": "the target refused it",
    }  # fmt: skip
    return msgspec.convert(fields | more, Message)


@pytest.fixture
def supervisor(supervisor: Supervisor) -> Supervisor:
    """See conftest; it knows the figures."""
    supervisor.will_say("queue.stats", STATS)
    return supervisor


@pytest.mark.parametrize("arguments", [(), ("ls",)])
def test_alone_it_lists_the_addresses(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert supervisor.run(*arguments) == 0
    head, first, _ = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "ADDRESS"
    assert first.split() == ["flow.orders.0", "3", "1", "2", "9", "0", "0", "2", "2.0", "KiB"]
    assert supervisor.run(*arguments, "--json") == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=QueueStats) == STATS


@pytest.mark.parametrize("pattern", ["notice.*", "lan/main/notice.mail"])
def test_a_list_can_be_narrowed_to_a_pattern(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], pattern: str
) -> None:
    assert supervisor.run("ls", pattern, "--json") == 0
    assert [depth["address"] for depth in json.loads(capsys.readouterr().out)["depths"]] == ["notice.mail"]


def test_dead_letters_of_every_cluster_are_listed_with_their_numbers(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.will_say("queue.browse", Messages(messages=(message(7), message(9))), Messages(messages=()))
    assert supervisor.run("dead") == 0
    _, first, second = capsys.readouterr().out.splitlines()
    assert (first.split()[0], second.split()[0]) == ("7", "9")
    assert first.endswith("8 of 8    id-7  the target refused it")
    assert supervisor.asked("queue.browse") == [Browse(address="*"), Browse(address="*/*/*", limit=98)]


def test_more_dead_letters_than_fit_into_a_page_are_read_page_by_page(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Messages(messages=tuple(message(n) for n in range(1, 1001)))
    supervisor.will_say("queue.browse", page, Messages(messages=(message(2000),)))
    assert supervisor.run("dead", "flow.*", "-n", "5000", "--json") == 0
    shown = msgspec.json.decode(capsys.readouterr().out, type=Messages)
    assert [m.seq for m in shown.messages] == [*range(1, 1001), 2000]
    assert supervisor.asked("queue.browse") == [
        Browse(address="flow.*", limit=1000),
        Browse(address="flow.*", after=1000, limit=1000),
    ]


def test_attempts_that_are_not_counted_here_have_no_limit(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    letter = message(7, address="far/east/orders", attempt=2, max_attempts=UNCOUNTED, reason="refused")
    supervisor.will_say("queue.browse", Messages(messages=(letter,)), Messages(messages=()))
    assert supervisor.run("dead") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[3:] == ["far/east/orders", "2", "id-7", "refused"]


def test_without_dead_letters_it_says_so(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.will_say("queue.browse", Messages(messages=()))
    assert supervisor.run("dead") == 0
    assert capsys.readouterr().out == "There are no dead letters.\n"


LETTER = Letter(
    message=message(7, size=11),
    kind="json",
    body=b'{"total":3}',
    history=(Line(at=1_790_000_050.0, attempt=1, holder="arsrv-1", what="retried", reason="\x1b[2Jaway"),),
    key="customer-1",
)


def test_a_message_is_shown_with_its_history_and_its_body_laid_out(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.will_say("queue.peek", LETTER)
    assert supervisor.run("peek", "7") == 0
    shown = capsys.readouterr().out
    assert "message       7  flow.orders.0  dead\n" in shown
    assert "key           customer-1\n" in shown
    assert "body          11 bytes, json\n" in shown
    assert shown.endswith('\n{\n  "total": 3\n}\n')
    assert "\x1b" not in shown, "what a peer wrote does not reach the terminal as a command"
    assert supervisor.asked("queue.peek") == [Peek(seq=7, who="eve")]


@pytest.mark.parametrize("body", [rb'{"a":"\u009b2J\u202e"}', b"first\rlast\x09end", "\u2028x".encode()])
def test_no_body_writes_on_the_terminal_where_it_should_not(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    kind = kind_of(body)
    supervisor.will_say("queue.peek", Letter(message=message(7, size=len(body)), kind=kind, body=body))
    assert supervisor.run("peek", "7") == 0
    assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_a_body_comes_raw_for_a_program(supervisor: Supervisor, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    supervisor.will_say("queue.peek", LETTER)
    assert supervisor.run("peek", "7", "--raw") == 0
    assert capsysbinary.readouterr().out == b'{"total":3}'


def test_dead_letters_are_requeued_by_number(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.will_say("queue.requeue", Changed(count=2, last=9))
    assert supervisor.run("requeue", "7", "9") == 0
    assert capsys.readouterr().out == "2 messages requeued.\n"
    assert supervisor.asked("queue.requeue") == [Requeue(seqs=(7, 9), who="eve")]


def test_all_of_an_address_are_requeued_slice_by_slice(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.will_say("queue.requeue", Changed(count=1000, last=1500, more=True), Changed(count=200, last=1800))
    assert supervisor.run("requeue", "flow.orders.0", "--limit", "1200", "--json") == 0
    assert json.loads(capsys.readouterr().out)["count"] == 1200
    assert supervisor.asked("queue.requeue") == [
        Requeue(address="flow.orders.0", limit=1000, who="eve"),
        Requeue(address="flow.orders.0", limit=200, after=1500, who="eve"),
    ]


def test_a_purge_without_a_terminal_wants_a_yes(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    assert supervisor.run("purge", "flow.orders.0") == 2
    code, hint = capsys.readouterr().err.splitlines()
    assert code.startswith("not-confirmed: This drops 2 dead letters at flow.orders.0 for good.")
    assert "--yes" in hint
    assert supervisor.asked("queue.purge") == []

    supervisor.will_say("queue.purge", Changed(count=2, last=9))
    assert supervisor.run("purge", "flow.orders.0", "--yes") == 0
    assert capsys.readouterr().out == "2 messages purged.\n"
    assert supervisor.asked("queue.purge") == [Purge(address="flow.orders.0", who="eve")]


@pytest.mark.parametrize(("typed", "status"), [("y\n", 0), ("yes\n", 0), ("n\n", 2), ("\n", 2), ("", 2)])
def test_at_a_terminal_a_purge_asks(
    supervisor: Supervisor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    status: int,
) -> None:
    terminal = io.StringIO(typed)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    supervisor.will_say("queue.purge", Changed(count=3))
    assert supervisor.run("purge", "flow.*", "--waiting") == status
    assert "This drops 3 waiting messages at flow.* for good. Go on? [y/N]" in capsys.readouterr().err
    done: list[msgspec.Struct] = [Purge(address="flow.*", state="ready", who="eve")]
    assert supervisor.asked("queue.purge") == (done if status == 0 else [])


@pytest.mark.parametrize("call", ["requeue", "purge"])
def test_numbers_and_addresses_do_not_mix(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    assert supervisor.run(call, "7", "flow.orders.0") == 2
    assert capsys.readouterr().err.startswith("invalid-input: ")


def test_a_tail_shows_each_message_once_in_the_order_in_which_they_came(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = Problem(code="unavailable", message="The queue is away.", status=503)
    pages: list[Reply] = [
        Messages(messages=(message(2), message(1))),
        away,
        away,
        Messages(messages=(message(3), message(2), message(1))),
        Messages(messages=(message(5), message(4), message(3))),
    ]
    supervisor.will_say("queue.recent", *pages)
    interrupt_after(monkeypatch, len(pages))
    assert supervisor.run("tail", "flow.*", "-n", "2") == 130
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()] == ["1", "2", "3", "4", "5"]
    assert shown.err.splitlines() == ["unavailable: The queue is away."], "it is said once, and the tail goes on"
    first, then, *_ = supervisor.asked("queue.recent")
    assert first == RecentQuery(limit=2, only="flow.*")
    assert then == RecentQuery(limit=1000, only="flow.*")

    supervisor.will_say("queue.recent", away)
    assert supervisor.run("tail") == 3


def interrupt_after(monkeypatch: pytest.MonkeyPatch, polls: int) -> None:
    """Let the person press Ctrl-C in place of that many waits."""
    waits = iter(range(polls - 1))

    def wait(_seconds: float) -> None:
        if next(waits, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr("appliance.cli_queue.time.sleep", wait)


def test_the_figures_are_shown_for_a_person_a_program_and_prometheus(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert supervisor.run("stats") == 0
    shown = capsys.readouterr().out
    assert "commits       4, 2.00 ms each on average\n" in shown
    assert "held          5.0 MiB, 1.0 GiB of the disk free\n" in shown
    assert supervisor.run("stats", "--prometheus") == 0
    assert 'alpha_ren_queue_messages{address="flow.orders.0",state="dead"} 2\n' in capsys.readouterr().out
    assert supervisor.run("stats", "--json") == 0
    assert json.loads(capsys.readouterr().out)["commits"] == 4


def test_prometheus_figures_have_the_routes_with_and_without_their_bridge(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    route = RouteStatus(to="far/east", endpoint="tcp://192.0.2.7:7156", connected=True, lag_s=0.5)
    supervisor.will_say("queue.stats", QueueStats(at=0.0, depths=(), routes=("far/east",)))
    supervisor.will_say(
        "bridge.routes",
        RoutesStatus(place="lan/main", public_key="k" * 40, routes=(route,)),
        Problem(code="call-not-served", message="Nobody serves it.", status=503),
    )
    for connected in (1, 0):
        assert supervisor.run("stats", "--prometheus") == 0
        assert f'alpha_ren_queue_route_connected{{to="far/east"}} {connected}\n' in capsys.readouterr().out


def test_the_routes_come_with_both_keys_of_the_bridge(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    status = RoutesStatus(place="lan/main", public_key="k" * 40, next_key="n" * 40, routes=())
    supervisor.will_say("bridge.routes", status)
    assert supervisor.run("routes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"The bridge of lan/main has the public key {'k' * 40}", f"Its next one is {'n' * 40}"]


@pytest.mark.parametrize(
    "arguments",
    [
        *(("dead",), ("peek", "7"), ("tail",), ("requeue", "7"), ("purge", "7", "--yes")),
        *(("backup",), ("check",), ("compact",), ("ls",), ("stats",), ("routes",)),
    ],
)
def test_what_the_broker_refuses_is_two_lines_on_standard_error(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    refusal = Problem(code="not-permitted", message="supervisor may not.", hint="Ask somebody else.", status=403)
    for call in CALLS:
        supervisor.will_say(call, refusal)
    assert supervisor.run(*arguments) == 2
    assert capsys.readouterr().err == "not-permitted: supervisor may not.\n  Ask somebody else.\n"


def test_where_no_bridge_runs_it_says_so(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.will_say("bridge.routes", Problem(code="call-not-served", message="Nobody serves it.", status=503))
    assert supervisor.run("routes") == 3
    assert capsys.readouterr().err.startswith("no-bridge: ")


def test_a_route_has_its_backlog_its_lag_and_what_holds_it_up(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    route = RouteStatus(
        to="far/east", endpoint="tcp://192.0.2.7:7156", connected=False, sent_total=12, lag_s=61.0, problem="Not there."
    )
    supervisor.will_say("bridge.routes", RoutesStatus(place="lan/main", public_key="k" * 40, routes=(route,)))
    here = Depth(address="far/east/orders", ready=3, leased=2, bytes=2048)
    supervisor.will_say("queue.stats", QueueStats(at=0.0, depths=(here, Depth(address="far/eastern/orders", ready=9))))
    assert supervisor.run("routes") == 0
    key, _, _, row = capsys.readouterr().out.splitlines()
    assert key == f"The bridge of lan/main has the public key {'k' * 40}"
    assert " ".join(row.split()) == "far/east 192.0.2.7:7156 away 5 2.0 KiB 61.0 s 12 0 Not there."
    assert supervisor.run("routes", "--json") == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=RoutesStatus).routes == (route,)


ODD = ["a b", "a/b", "*/*/*/*", "a\n", "ä", "\udcff", "x" * 300]
"""What is no address; one of them is no text either, as the shell may pass it on."""


@pytest.mark.parametrize("address", ODD)
@pytest.mark.parametrize("command", ["ls", "dead", "tail", "requeue", "purge"])
def test_what_is_no_address_is_refused_before_anybody_is_asked(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], command: str, address: str
) -> None:
    assert supervisor.run(command, address) == 2
    code, hint = capsys.readouterr().err.splitlines()
    assert code.startswith("bad-address: ")
    assert "letters, digits" in hint
    assert supervisor.stub.asked == []


@pytest.mark.parametrize("which", [("",), ("0",), ("7", "0"), (f"{2**63}",), ("9" * 5000,)])
def test_what_no_message_can_be_is_refused_before_anybody_is_asked(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], which: tuple[str, ...]
) -> None:
    for command in ("requeue", "purge"):
        assert supervisor.run(command, *which) == 2
        assert len(capsys.readouterr().err.splitlines()) == 2
    assert supervisor.stub.asked == []


def test_a_message_that_is_named_twice_is_counted_once(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert supervisor.run("purge", "7", "07", "9") == 2
    assert "This drops 2 dead letters for good." in capsys.readouterr().err


def test_without_any_standard_input_nobody_agrees(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert supervisor.run("purge", "7") == 2
    assert capsys.readouterr().err.startswith("not-confirmed: ")


def test_a_reader_that_has_seen_enough_is_no_error(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert supervisor.run("ls") == 0


@pytest.mark.parametrize(
    "arguments",
    [("peek",), ("peek", "x"), ("peek", f"{2**63}"), ("requeue",), ("purge", "a", "--limit", "0"), ("x",)],
)
def test_wrong_usage_is_exit_status_two(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        supervisor.run(*arguments)
    assert caught.value.code == 2
    assert "usage: alpha-ren queue" in capsys.readouterr().err

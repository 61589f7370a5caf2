"""`alpha-ren queue`: what it asks of the broker, through the supervisor, and what it says."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from appliance import cli
from appliance.contracts.bridge import RoutesStatus, RouteStatus
from appliance.contracts.letters import (
    CALLS,
    BackedUp,
    Browse,
    Changed,
    Checked,
    Compacted,
    Letter,
    Line,
    Peek,
    Purge,
    Requeue,
)
from appliance.contracts.machine import Rotated
from appliance.contracts.traffic import Depth, Message, Messages, QueueStats, RecentQuery
from appliance.errors import Problem
from tests.unit.supervisor.control_stub import ControlStub

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


Reply = msgspec.Struct | Problem


class Supervisor:
    """A control socket that answers each call with the next of its replies, the last of which stays."""

    def __init__(self, folder: Path) -> None:
        self._replies: dict[str, list[Reply]] = {}
        self.stub = ControlStub(folder, self._answer)

    def will_say(self, call: str, *replies: Reply) -> None:
        self._replies[call] = list(replies)

    def _answer(self, call: str, _body: bytes) -> list[bytes]:
        replies = self._replies[call]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return [b"error" if isinstance(reply, Problem) else b"ok", msgspec.json.encode(reply)]

    def run(self, *arguments: str) -> int:
        return cli.main(["--socket", self.stub.endpoint, "queue", *arguments])

    def asked(self, call: str) -> list[msgspec.Struct]:
        """Return the requests of a call, as the broker would read them."""
        kind = CALLS[call][0]
        assert kind is not None
        return [msgspec.json.decode(body, type=kind) for name, body in self.stub.asked if name == call]


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setenv("SUDO_USER", "eve")
    supervisor = Supervisor(tmp_path)
    supervisor.will_say("queue.stats", STATS)
    with supervisor.stub:
        yield supervisor


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


def test_a_backup_is_copied_to_where_it_is_wanted(
    supervisor: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, wanted = tmp_path / "made", tmp_path / "wanted"
    made.write_bytes(b"the store")
    supervisor.will_say("queue.backup", BackedUp(path=str(made), size=9, at=1_790_000_000.0))
    assert supervisor.run("backup", str(wanted)) == 0
    assert str(wanted) in capsys.readouterr().out
    assert wanted.read_bytes() == b"the store"
    assert wanted.stat().st_mode & 0o777 == 0o600
    assert supervisor.run("backup") == 0
    assert str(made) in capsys.readouterr().out
    assert supervisor.run("backup", str(tmp_path / "none" / "x")) == 1
    assert capsys.readouterr().err.startswith("copy-not-kept: ")


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What systemd is told, which is not there to hear it."""
    told: list[list[str]] = []
    monkeypatch.setattr("appliance.cli_store.subprocess.run", lambda command, **_: told.append(command))
    return told


def test_a_backup_is_left_where_the_broker_takes_it_up_when_it_starts(
    supervisor: Supervisor, tmp_path: Path, restarts: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backup").write_bytes(b"the store")
    arguments = ("restore", str(tmp_path / "backup"), "--directory", str(tmp_path))
    assert supervisor.run(*arguments) == 2
    assert capsys.readouterr().err.startswith("not-confirmed: ")
    assert (restarts, (tmp_path / "restore.sqlite").exists()) == ([], False)
    assert supervisor.run(*arguments, "--yes") == 0
    assert (tmp_path / "restore.sqlite").read_bytes() == b"the store"
    assert restarts == [["systemctl", "restart", "alpha-ren-queue.service"]]
    assert str(tmp_path / "replaced.sqlite") in capsys.readouterr().out


def test_a_backup_that_the_broker_refuses_is_told(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backup").write_bytes(b"anything")
    candidate, refused = tmp_path / "restore.sqlite", tmp_path / "refused.sqlite"
    monkeypatch.setattr("appliance.cli_store.subprocess.run", lambda *_, **__: candidate.rename(refused))
    for _ in range(2):
        assert supervisor.run("restore", str(tmp_path / "backup"), "--yes", "--directory", str(tmp_path)) == 2
        assert capsys.readouterr().err.startswith("not-restored: ")
    assert supervisor.run("restore", str(tmp_path / "none"), "--yes") == 2


@pytest.mark.parametrize(
    ("problems", "status", "shown"),
    [((), 0, "The store is sound.\n"), (("A page is torn.", "So is another."), 1, "A page is torn.\nSo is another.\n")],
)
def test_a_check_is_zero_only_for_a_sound_store(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], problems: tuple[str, ...], status: int, shown: str
) -> None:
    supervisor.will_say("queue.check", Checked(problems=problems))
    assert supervisor.run("check") == status
    assert capsys.readouterr().out == shown


def test_compacting_goes_on_until_there_is_no_more(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.will_say("queue.compact", Compacted(pages=1000), Compacted(pages=34))
    assert supervisor.run("compact") == 0
    assert capsys.readouterr().out == "1034 unused pages given back to the disk.\n"


def test_the_key_is_rotated_only_when_that_is_agreed_to(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.will_say("queue.rotate-key", Rotated(steps=3))
    assert supervisor.run("rotate-key") == 2
    assert supervisor.run("rotate-key", "--yes") == 0
    assert capsys.readouterr().out == "The broker has its next key, 3 steps taken.\n"


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
    depths = (Depth(address="far/east/orders", ready=3, leased=2), Depth(address="far/eastern/orders", ready=9))
    supervisor.will_say("queue.stats", QueueStats(at=0.0, depths=depths))
    assert supervisor.run("routes") == 0
    key, _, _, row = capsys.readouterr().out.splitlines()
    assert key == f"The bridge of lan/main has the public key {'k' * 40}"
    assert row.split() == ["far/east", "192.0.2.7:7156", "away", "5", "61.0", "s", "12", "0", "Not", "there."]
    assert supervisor.run("routes", "--json") == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=RoutesStatus).routes == (route,)


@pytest.mark.parametrize("arguments", [("peek",), ("peek", "x"), ("requeue",), ("purge", "a", "--limit", "0"), ("x",)])
def test_wrong_usage_is_exit_status_two(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        supervisor.run(*arguments)
    assert caught.value.code == 2
    assert "usage: alpha-ren queue" in capsys.readouterr().err

"""The command: what it says, on which stream, and with which exit status."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from appliance import cli
from appliance.contracts.machine import (
    Applied,
    BootPhase,
    ConfigText,
    Confirmation,
    Firewall,
    InstanceUse,
    MachineStatus,
    NicStatus,
    PendingChange,
    Plan,
    PlanStep,
    Repair,
    Reverted,
    UnitState,
    UnitStatus,
)
from appliance.contracts.user import Done
from appliance.errors import Problem
from appliance.topology import FlowRule, MachineUse, Waits
from tests.unit.supervisor.control_stub import ControlStub

Serve = Callable[..., AbstractContextManager[ControlStub]]


def unit(component: str, instance: str, state: UnitState = "active") -> UnitStatus:
    return UnitStatus(
        name=f"alpha-ren-{instance}.service", component=component, instance=instance, state=state, memory_mb=12.4
    )


STATUS = MachineStatus(
    at=1_790_000_000.0,
    name="box-1",
    version="1.2.3",
    profile="qemu",
    ready=True,
    units=(unit("queue", "queue"), unit("arsrv", "arsrv-1"), unit("arsrv", "arsrv-2")),
    uplink=("10.0.2.15/24",),
    console_url="https://localhost:8443/",
    fingerprint=":".join(["AB"] * 32),
    boot=(BootPhase(name="kernel", seconds=3.25), BootPhase(name="ready", seconds=9.0)),
    notes=("The kernel has no WireGuard.",),
    repairs=(Repair(at=1.0, cause="a link went in the host", steps=("make veth x", "make y"), took_s=0.03),),
)
PROBLEM = Problem(code="unit-failed", message="arsrv-2 failed.", hint="Look at `alpha-ren logs arsrv-2`.")


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Return a function that starts a control socket with one reply for each call."""

    def start(**replies: msgspec.Struct | None) -> ControlStub:
        def answer(call: str, _body: bytes) -> list[bytes] | None:
            reply = replies[call.replace(".", "_")]
            if reply is None:
                return None
            return [b"error" if isinstance(reply, Problem) else b"ok", msgspec.json.encode(reply)]

        return ControlStub(tmp_path, answer)

    return start


def run(stub: ControlStub, *arguments: str) -> int:
    return cli.main(["--socket", stub.endpoint, *arguments])


def test_status_is_a_table_for_a_person(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(status=STATUS) as stub:
        assert run(stub, "status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "box-1  1.2.3 (qemu)  READY"
    assert "  console       https://localhost:8443/" in lines
    assert "  boot          kernel 3.2 s  ready 9.0 s" in lines
    assert "  note          The kernel has no WireGuard." in lines
    [repaired] = [line for line in lines if line.startswith("  repaired")]
    assert repaired.endswith("in 0.03 s: make veth x and 1 more steps, because a link went in the host")
    assert lines[-4] == "COMPONENT  INSTANCE  UNIT                       STATE   RESTARTS  MEMORY"
    assert lines[-1] == "arsrv      arsrv-2   alpha-ren-arsrv-2.service  active  0         12 MiB"


def test_status_shows_the_network_cards_and_what_does_not_fit(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    nic = NicStatus(name="enp0s2", role="uplink", mac="52:54:00:00:00:01", driver="virtio_net", bus="0000:00:02.0")
    warning = Problem(code="nic-unknown", message="The network card eth9 has no role here.", hint="Look it up.")
    with serve(status=msgspec.structs.replace(STATUS, nics=(nic,), warnings=(warning,))) as stub:
        assert run(stub, "status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  network card  enp0s2: uplink (virtio_net, 0000:00:02.0, 52:54:00:00:00:01)" in lines
    assert "  warning       nic-unknown: The network card eth9 has no role here. Look it up." in lines


def test_status_says_what_is_used_and_what_it_waits_for(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    waits = Waits(cpu=12.4, memory=0.0, io=3.0)
    machine = MachineUse(
        cpus=2, load=1.25, cpu_percent=40.2, memory_mb=700.4, memory_total_mb=1980.0, waits=waits
    )
    full = InstanceUse(
        instance="queue", cpu_percent=7.6, memory_mb=500.5, memory_max_mb=512.0, tasks=9, tasks_max=64, oom_kills=2,
        waits=waits,
    )  # fmt: skip
    with serve(status=msgspec.structs.replace(STATUS, use=machine, instances=(full, InstanceUse(instance="dns")))) as s:
        assert run(s, "status") == 0
    lines = capsys.readouterr().out.splitlines()
    load = "1.25 on 2 CPUs (40 %), 700 of 1980 MiB; waits for CPU 12 %, memory 0 %, disk 3 %"
    assert f"  load          {load}" in lines
    assert " ".join(lines[-2].split()) == "queue 8 % 500 MiB 512 MiB 9 64 12 % 0 % 3 % killed 2 times"
    assert " ".join(lines[-1].split()) == "dns - - - - - - - - -"


def test_status_ends_with_what_is_wrong(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(status=msgspec.structs.replace(STATUS, ready=False, step="starting", last_error=PROBLEM)) as stub:
        assert run(stub, "status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("NOT READY: starting")
    assert lines[-2:] == ["unit-failed: arsrv-2 failed.", "  Look at `alpha-ren logs arsrv-2`."]


def test_status_as_json_is_the_document_itself(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(status=STATUS) as stub:
        assert run(stub, "status", "--json") == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=MachineStatus) == STATUS


@pytest.mark.parametrize(
    ("plan", "shown"),
    [
        (Plan(), "Nothing to do: the machine is as it should be.\n"),
        (
            Plan(steps=(PlanStep(action="make", kind="veth", name="queue", why="it is missing"),)),
            "ACTION  KIND  NAME   WHY\nmake    veth  queue  it is missing\n",
        ),
    ],
)
def test_plan_shows_each_step_or_that_there_is_none(
    serve: Serve, capsys: pytest.CaptureFixture[str], plan: Plan, shown: str
) -> None:
    with serve(plan=plan) as stub:
        assert run(stub, "plan") == 0
        assert capsys.readouterr().out == shown
        assert run(stub, "plan", "--json") == 0
        assert msgspec.json.decode(capsys.readouterr().out, type=Plan) == plan


def test_firewall_shows_every_flow_with_its_reason(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    flow = FlowRule(
        source="arsrv-1", target="queue", protocol="tcp", port=7156, component="arsrv", reason="messages"
    )
    other = FlowRule(source="dns", target="any", protocol="udp", port=53, component="dns", reason="asks")
    with serve(firewall=Firewall(flows=(flow, other))) as stub:
        assert run(stub, "firewall") == 0
        shown = capsys.readouterr().out
        assert run(stub, "firewall", "queue", "--json") == 0
    rows = shown.partition("\n\n")[0].splitlines()[1:]
    assert [row.split() for row in rows] == [
        ["arsrv-1", "queue", "tcp", "7156", "-", "arsrv", "messages"],
        ["dns", "any", "udp", "53", "-", "dns", "asks"],
    ]
    assert shown.endswith("All else is dropped.\n")
    assert msgspec.json.decode(capsys.readouterr().out, type=Firewall) == Firewall(flows=(flow,))


def test_health_is_zero_only_when_ready(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(status=STATUS) as stub:
        assert run(stub, "health") == 0
    assert capsys.readouterr().out == "ready\n"
    waiting = msgspec.structs.replace(
        STATUS, ready=False, units=(*STATUS.units, unit("dns", "dns", "failed")), last_error=PROBLEM
    )
    with serve(status=waiting) as stub:
        assert run(stub, "health") == 1
    assert capsys.readouterr().err.splitlines() == [
        "not-ready: The machine is not ready: alpha-ren-dns.service is failed.",
        "  arsrv-2 failed. Look at `alpha-ren logs arsrv-2`.",
    ]


def test_health_waits_until_the_machine_is_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = iter([False, False, True])

    def answer(_call: str, _body: bytes) -> list[bytes]:
        return [b"ok", msgspec.json.encode(msgspec.structs.replace(STATUS, ready=next(states)))]

    with ControlStub(tmp_path, answer) as stub:
        assert run(stub, "health", "--wait", "--timeout", "60") == 0
        assert len(stub.asked) == 3
    assert capsys.readouterr().out == "ready\n"


def test_health_gives_up_at_its_timeout(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(status=msgspec.structs.replace(STATUS, ready=False)) as stub:
        assert run(stub, "health", "--wait", "--timeout", "1") == 1
        assert len(stub.asked) > 1
    assert "self-test" in capsys.readouterr().err


def test_a_supervisor_that_is_away_is_exit_status_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["status"], ["plan"], ["health"], ["health", "--wait", "--timeout", "1"]):
        assert cli.main(["--socket", f"ipc://{tmp_path}/none.sock", *arguments]) == 3
        code, hint = capsys.readouterr().err.splitlines()
        assert code.startswith("supervisor-away: ")
        assert "alpha-ren logs supervisor" in hint


def test_check_accepts_a_valid_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.toml").write_text('[machine]\nname = "box-1"\n')
    assert cli.main(["check", str(tmp_path / "good.toml")]) == 0
    assert "is valid" in capsys.readouterr().out


@pytest.mark.parametrize("text", ['[machine]\nnaem = "box-1"\n', "[machine", "version = 99\n", None])
def test_an_invalid_configuration_is_refused_and_never_sent(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    path = tmp_path / "bad.toml"
    if text is not None:
        path.write_text(text)
    with serve() as stub:
        for command in ("check", "apply"):
            assert run(stub, command, str(path)) == 2
            first, hint = capsys.readouterr().err.splitlines()
            assert first.startswith("invalid-config: ")
            assert hint.startswith("  ")
        assert stub.asked == []


def test_apply_sends_the_file_as_it_is(tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "good.toml"
    path.write_text('# kept\n[machine]\nname = "box-1"\n')
    with serve(apply=Applied(digest="ab" * 32, steps=4)) as stub:
        assert run(stub, "apply", str(path)) == 0
        ((call, body),) = stub.asked
    assert call == "apply"
    assert msgspec.json.decode(body, type=ConfigText).text == path.read_text()
    assert capsys.readouterr().out == "In force: abababababab, 4 steps taken.\n"


PENDING = PendingChange(digest="ab" * 32, touched=("nic ardpx/uplink changes (addresses)",), seconds_left=58.7)


def test_a_change_on_trial_is_said_when_it_is_applied_and_in_the_status(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "nic ardpx/uplink changes (addresses). Undone in 59 seconds, unless `alpha-ren confirm` keeps it."
    (tmp_path / "new.toml").write_text("")
    applied = Applied(digest="ab" * 32, steps=1, pending=PENDING)
    with serve(apply=applied, status=msgspec.structs.replace(STATUS, pending=PENDING)) as stub:
        assert run(stub, "apply", "--confirm-within", "20", str(tmp_path / "new.toml")) == 0
        assert capsys.readouterr().out.splitlines()[1] == f"On trial: {said}"
        assert run(stub, "status") == 0
        ((_, body), _) = stub.asked
    assert f"  on trial      {said}" in capsys.readouterr().out.splitlines()
    assert msgspec.json.decode(body, type=ConfigText).confirm_within_s == 20


def test_a_change_is_kept_or_undone_by_whoever_says_so(
    serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    with serve(confirm=Done(), revert=Reverted(steps=2)) as stub:
        assert run(stub, "confirm") == 0
        assert run(stub, "revert") == 0
    assert [msgspec.json.decode(body, type=Confirmation).who for _, body in stub.asked] == ["alice", "alice"]
    assert capsys.readouterr().out.splitlines() == [
        "The change stays.",
        "The configuration before the change is in force again, 2 steps taken.",
    ]


def test_what_the_supervisor_refuses_is_shown_as_it_said_it(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.toml").write_text("")
    with serve(apply=Problem(code="invalid-config", message="No.", hint="Do otherwise.", status=400)) as stub:
        assert run(stub, "apply", str(tmp_path / "good.toml")) == 2
    assert capsys.readouterr().err == "invalid-config: No.\n  Do otherwise.\n"


class Became(Exception):
    """Stands for the process that the command turned into."""


def test_logs_turns_into_journalctl_for_all_units_of_a_component(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []

    def become(_file: str, command: list[str]) -> None:
        became.append(command)
        raise Became

    monkeypatch.setattr("os.execvp", become)
    with serve(status=STATUS) as stub, pytest.raises(Became):
        run(stub, "logs", "arsrv", "-n", "7", "-f")
    units = ["--unit=alpha-ren-arsrv.service", "--unit=alpha-ren-arsrv-*.service"]
    assert became == [["journalctl", "--lines=7", "--follow", *units]]


def test_logs_of_the_supervisor_need_no_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def become(_file: str, command: list[str]) -> None:
        assert command[-1] == "--unit=alpha-ren-supervisor.service"
        raise Became

    monkeypatch.setattr("os.execvp", become)
    with pytest.raises(Became):
        cli.main(["--socket", f"ipc://{tmp_path}/none.sock", "logs", "supervisor"])


@pytest.mark.parametrize("name", ["nothing", "--help;", "a b", "*", ""])
def test_logs_of_what_is_not_there_are_refused(serve: Serve, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with serve(status=STATUS) as stub:
        assert run(stub, "logs", "--", name) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["logs"], ["logs", "dns", "-n", "0"], ["health", "--timeout", "x"]]
)
def test_wrong_usage_is_exit_status_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: alpha-ren" in capsys.readouterr().err


def test_help_names_every_command_and_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    words = "status plan firewall logs queue health check apply confirm revert"
    for word in (*words.split(), "exit status:"):
        assert word in shown

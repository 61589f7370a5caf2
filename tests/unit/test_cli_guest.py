"""`alpha-ren guest`: what it shows and what it asks for."""

from pathlib import Path

import msgspec
import pytest

from appliance import cli
from appliance.contracts.machine import GuestNamed, Guests, GuestStatus
from appliance.contracts.user import Done
from appliance.errors import Problem
from tests.unit.supervisor.control_stub import ControlStub

GUESTS = Guests(
    guests=(GuestStatus(instance="arsrv-1", state="running", accelerator="kvm", cpus=2, memory_mb=512),),
    notes=("arsrv-2: moved into virtual machines one at a time, each once the others serve.",),
)


def asked(folder: Path, reply: msgspec.Struct, *arguments: str) -> tuple[int, list[tuple[str, bytes]]]:
    """The exit status of the command, and what it asked the supervisor."""
    kind = b"error" if isinstance(reply, Problem) else b"ok"
    with ControlStub(folder, lambda _call, _body: [kind, msgspec.json.encode(reply)]) as stub:
        status = cli.main(["--socket", stub.endpoint, "guest", *arguments])
    return status, stub.asked


def test_the_guests_are_a_table_and_below_it_is_what_a_person_should_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(tmp_path, GUESTS) == (0, [("guests", b"{}")])
    head, row, note = capsys.readouterr().out.splitlines()
    assert head.split() == ["INSTANCE", "STATE", "ACCELERATOR", "CPUS", "MEMORY"]
    assert row.split() == ["arsrv-1", "running", "kvm", "2", "512", "MiB"]
    assert note == GUESTS.notes[0]


def test_without_guests_it_says_so_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = "Servers run in namespaces: this machine has no KVM."
    assert asked(tmp_path, Guests(notes=(why,)))[0] == 0
    assert capsys.readouterr().out.splitlines() == ["No instance is a virtual machine here.", why]


def test_as_json_it_is_the_document_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(tmp_path, GUESTS, "--json")[0] == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=Guests) == GUESTS


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_one_guest_is_held_or_let_go_on(tmp_path: Path, command: str) -> None:
    body = msgspec.json.encode(GuestNamed(instance="arsrv-1"))
    assert asked(tmp_path, Done(), command, "arsrv-1") == (0, [(f"guest.{command}", body)])


def test_a_name_that_is_no_guests_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem(code="not-found", message="queue is no virtual machine here.", hint="…", status=404)
    assert asked(tmp_path, problem, "pause", "queue")[0] == 2
    assert capsys.readouterr().err.startswith("not-found: queue is no virtual machine here.")

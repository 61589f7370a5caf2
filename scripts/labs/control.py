"""The words between a lab's keeper and whoever uses the lab: one packet each way on the lab's control socket."""

import socket
from typing import Literal

import msgspec

from appliance.errors import Problem, Relayed
from scripts.labs import state
from scripts.labs.errors import NoSuchLab
from scripts.labs.machine import State

PACKET = 128 * 1024
"""The longest packet, in bytes; a view of some hundred machines fits."""


class _Word(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Show(_Word, frozen=True, kw_only=True, tag="show"):
    """Asks what there is."""


class Attach(_Word, frozen=True, kw_only=True, tag="attach"):
    """Asks for a pidfd of the first process of a machine or host; it comes with the reply."""

    name: str


Action = Literal["on", "off", "unplug"]


class Power(_Word, frozen=True, kw_only=True, tag="power"):
    """Asks to switch a machine on, to power it off cleanly, or to pull its plug; answered at once."""

    machine: str
    action: Action


class Await(_Word, frozen=True, kw_only=True, tag="await"):
    """Asks for an answer once a machine is in `state` after at least `boots` boots, or `deadline_s` has passed."""

    machine: str
    state: State
    deadline_s: float
    boots: int = 0


class Down(_Word, frozen=True, kw_only=True, tag="down"):
    """Asks the lab to end."""


Request = Show | Attach | Power | Await | Down


class MachineView(_Word, frozen=True, kw_only=True):
    """A machine as the keeper sees it: `addresses` by LAN, `published` is loopback port by machine port."""

    name: str
    state: State
    boots: int
    addresses: dict[str, str]
    published: dict[int, int]


class HostView(_Word, frozen=True, kw_only=True):
    """An outside host, with its addresses by LAN."""

    name: str
    addresses: dict[str, str]


class LabView(_Word, frozen=True, kw_only=True):
    """A lab: `watcher` and `keeper` are PIDs on this computer."""

    name: str
    tree: str
    watcher: int
    machines: tuple[MachineView, ...]
    hosts: tuple[HostView, ...]


class Reply(_Word, frozen=True, kw_only=True):
    """The answer: a problem, or a view where one was asked for; `reached` answers an Await."""

    problem: Problem | None = None
    lab: LabView | None = None
    reached: bool = True


def ask(lab: str, request: Request, *, deadline_s: float = 30.0) -> tuple[Reply, int | None]:
    """Send `request` to the keeper of `lab`; return its reply and the descriptor that came along, if any.

    Raises NoSuchLab when nobody answers, and the keeper's own error, relayed.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(deadline_s)
        try:
            connection.connect(str(state.control_socket(lab)))
            connection.send(msgspec.json.encode(request))
            packet, descriptors, _, _ = socket.recv_fds(connection, PACKET, 1)
        except OSError as error:
            raise NoSuchLab(f"The lab `{lab}` does not answer: {error}.") from error
    if not packet:
        raise NoSuchLab(f"The lab `{lab}` ended before it answered.")
    reply = msgspec.json.decode(packet, type=Reply)
    if reply.problem is not None:
        raise Relayed(reply.problem)
    return reply, descriptors[0] if descriptors else None


def view(lab: str) -> LabView:
    """Return what there is in `lab`."""
    seen = ask(lab, Show())[0].lab
    assert seen is not None, "a keeper answers Show with a view"
    return seen

"""A supervisor that is asked by `alpha-ren queue`, and answers what a test wants."""

from pathlib import Path

import msgspec

from appliance import cli
from appliance.contracts.letters import CALLS
from appliance.errors import Problem
from tests.unit.supervisor.control_stub import ControlStub

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

"""The systems around the box in a lab: what an outside host sends, and what it receives."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance.errors import DeadlinePassed
from scripts.labs.place import Host

OUTSIDE = Path(__file__).resolve().parents[1] / "outside"
POLL_S = 0.05


def wait_until(what: str, condition: Callable[[], bool], deadline_s: float = 30.0) -> None:
    """Return once `condition()` is true; raise DeadlinePassed, naming `what`, when it did not come true in time."""
    until = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > until:
            raise DeadlinePassed(f"{what}: not within {deadline_s:.0f} s.", hint="")
        time.sleep(POLL_S)


class Record:
    """What a system received, one JSON line each, in the order of arrival."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        """Return everything received up to now."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def wait_for(self, count: int, deadline_s: float = 30.0) -> list[dict[str, Any]]:
        """Return everything once `count` things have arrived."""
        wait_until(f"{count} arrivals in {self.path.name}", lambda: len(self.lines()) >= count, deadline_s)
        return self.lines()


@contextmanager
def running(host: Host, program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of tests/outside on an outside host for as long as the context lasts; it has started when this yields."""
    process = host.popen([sys.executable, str(OUTSIDE / program), *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", f"{program} did not start"
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


@contextmanager
def http_target(host: Host, record: Record, *options: str, port: int = 8080) -> Iterator[subprocess.Popen[str]]:
    """An HTTP server on an outside host that records what is delivered to it."""
    with running(host, "http_target.py", host.address(), str(port), str(record.path), *options) as process:
        yield process


@contextmanager
def smtp_sink(host: Host, record: Record, port: int = 2525) -> Iterator[subprocess.Popen[str]]:
    """An SMTP server on an outside host that records the mail it gets."""
    with running(host, "smtp_sink.py", host.address(), str(port), str(record.path)) as process:
        yield process


class Posted:
    """The answer to a POST from an outside host."""

    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)


def post(host: Host, url: str, body: str, *, headers: tuple[str, ...] = ()) -> Posted:
    """POST as a foreign system does, with curl."""
    argv = ["curl", "-sk", "--max-time", "15", "-D", "-", "-H", "Content-Type: application/json"]
    for header in headers:
        argv += ["-H", header]
    output = host.run([*argv, "--data-binary", "@-", url], stdin=body).stdout
    # HAProxy speaks HTTP/2, whose head is shown like that of HTTP/1.1; a 100 Continue comes before it.
    head, _, rest = output.replace("\r\n", "\n").partition("\n\n")
    while head.split()[1] == "100":
        head, _, rest = rest.partition("\n\n")
    lines = head.splitlines()
    fields = (line.partition(":") for line in lines[1:])
    return Posted(int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in fields}, rest)

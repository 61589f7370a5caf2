"""HAProxy's configuration, derived from what the components expose."""

import re
from collections.abc import Iterable
from importlib.resources import files
from string import Template
from typing import NamedTuple

import msgspec

from appliance.component import BadDeclaration, Exposure, Placed
from appliance.errors import Problem

RETRY_AFTER_S = 2

PROBLEMS = (
    Problem(
        code="no-answer", message="The server behind the proxy ended the connection without an answer.",
        hint="Whether it took the request is not known: send it again under the same Idempotency-Key.", status=502,
    ),
    Problem(
        code="unavailable", message="No server for this path is up right now.",
        hint="Send the request again after the time in Retry-After; `alpha-ren status` shows which component is down.",
        status=503,
    ),
    Problem(
        code="deadline-passed", message="The server behind the proxy did not answer in time.",
        hint="Whether it took the request is not known: send it again under the same Idempotency-Key.", status=504,
    ),
)
"""What the proxy says by itself, as the JSON that every other part of the appliance uses.

To what is not HTTP or too large it answers 400 before it knows of any of this, with HAProxy's own page.
"""


ONCE = """\
    # A POST that may have reached a server is not repeated here; one whose connection failed never did.
    http-request disable-l7-retry unless { method GET HEAD OPTIONS }
"""
AGAIN = """\
    # Only what HAProxy had as a whole before it sent the first byte can be sent again; what exceeds its buffer cannot.
    http-request wait-for-body time 10s
"""


class Backend(NamedTuple):
    """All servers behind one path prefix, (instance, IPv4 address, port) each; `check` tells whether one is well, and
    `repeatable` that a request may go to another after one that did not answer.
    """

    prefix: str
    check: str
    servers: tuple[tuple[str, str, int], ...]
    repeatable: bool = False

    @property
    def name(self) -> str:
        """The backend's name in HAProxy's configuration and statistics."""
        return "to_" + (re.sub(r"[^a-z0-9]+", "_", self.prefix.lower()).strip("_") or "root")


def backends(placed: Iterable[Placed]) -> tuple[Backend, ...]:
    """Return one backend per exposed prefix, the longest prefix first, so that `/` is the last.

    Raises BadDeclaration where two instances expose one prefix with different checks.
    """
    found: dict[str, list[tuple[Placed, Exposure]]] = {}
    for place in placed:
        for exposure in place.instance.exposures:
            found.setdefault(_normal(exposure.prefix), []).append((place, exposure))
    result = []
    for prefix, exposed in found.items():
        checks = {exposure.check for _, exposure in exposed}
        if len(checks) != 1:
            raise BadDeclaration(f"The path {prefix} is exposed with different checks: {', '.join(sorted(checks))}.")
        servers = tuple(
            (place.instance.name, place.leg.v4, place.instance.port(exposure.port).number)
            for place, exposure in exposed
        )
        repeatable = all(exposure.repeatable for _, exposure in exposed)
        result.append(Backend(prefix, checks.pop(), servers, repeatable))
    names = [backend.name for backend in result]
    if len(set(names)) != len(names):
        raise BadDeclaration(f"Two exposed paths give the same backend name: {', '.join(sorted(names))}.")
    return tuple(sorted(result, key=lambda backend: (-len(backend.prefix), backend.prefix)))


def render(placed: Iterable[Placed], control: str) -> str:
    """Return the whole configuration; `control` is the directory for its control socket."""
    found = backends(placed)
    return Template(_text("haproxy.cfg.tmpl")).substitute(
        control=control,
        problems="\n".join(_problem(problem) for problem in PROBLEMS),
        routes="\n".join(_route(backend) for backend in found),
        backends="\n".join(_backend(backend) for backend in found),
    )


def _normal(prefix: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", prefix):
        raise BadDeclaration(f"{prefix!r} is not a path prefix.")
    return prefix.rstrip("/") or "/"


def _route(backend: Backend) -> str:
    """`/hooks` means that path and everything below it, but not `/hooksmith`."""
    if backend.prefix == "/":
        return f"    default_backend {backend.name}"
    return f"    use_backend {backend.name} if {{ path {backend.prefix} }} or {{ path_beg {backend.prefix}/ }}"


def _backend(backend: Backend) -> str:
    servers = "\n".join(f"    server {name} {address}:{port}" for name, address, port in backend.servers)
    return Template(_text("backend.cfg.tmpl")).substitute(
        name=backend.name,
        check=backend.check,
        host=backend.name,
        repeats=AGAIN if backend.repeatable else ONCE,
        servers=servers,
    )


def _problem(problem: Problem) -> str:
    body = msgspec.json.encode(problem).decode()
    if "'" in body:
        raise BadDeclaration(f"The sentence for {problem.status} has a quotation mark that ends HAProxy's string.")
    headers = "hdr Cache-Control no-store" + (f" hdr Retry-After {RETRY_AFTER_S}" if problem.status == 503 else "")
    return f"    http-error status {problem.status} content-type application/problem+json string '{body}' {headers}"


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")

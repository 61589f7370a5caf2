"""HAProxy's configuration follows from what is exposed, and from nothing else."""

import re

import msgspec
import pytest

from appliance.ardpx.haproxy import PROBLEMS, backends, render
from appliance.component import BadDeclaration, Exposure, Instance, Placed, Port
from appliance.config import Arsrv, Config
from appliance.contracts.service import Leg
from appliance.errors import Problem
from tests.unit.placement import rendered, site_of


def exposing(name: str, *exposures: tuple[str, str], slot: int = 9) -> Placed:
    instance = Instance(
        name=name,
        slot=slot,
        legs=("cluster",),
        units=(),
        ports=(Port(name="http", number=7000 + slot),),
        exposures=tuple(Exposure(prefix=prefix, port="http", check=check) for prefix, check in exposures),
    )
    return Placed(component=name, instance=instance, legs={"cluster": Leg(v4=f"192.0.2.{slot}", v6="2001:db8::1")})


def routes(text: str) -> list[str]:
    return re.findall(r"^    (?:use|default)_backend .*$", text, re.MULTILINE)


def test_the_longest_prefix_comes_first_and_the_rest_is_the_consoles() -> None:
    placed = [exposing("a", ("/", "/health")), exposing("b", ("/x", "/x/h")), exposing("c", ("/x/long/", "/h"))]
    assert [backend.prefix for backend in backends(placed)] == ["/x/long", "/x", "/"]
    assert routes(render(placed, "/run/c"))[-1] == "    default_backend to_root"


def test_a_prefix_is_whole_path_segments() -> None:
    [route, _] = routes(render([exposing("a", ("/hooks/", "/h")), exposing("b", ("/", "/h"))], "/run/c"))
    assert route == "    use_backend to_hooks if { path /hooks } or { path_beg /hooks/ }"


def test_all_instances_of_a_prefix_are_balanced_and_checked_on_their_own_path() -> None:
    placed = [exposing("a-1", ("/a/", "/a/health"), slot=1), exposing("a-2", ("/a/", "/a/health"), slot=2)]
    [backend] = backends(placed)
    assert backend.servers == (("a-1", "192.0.2.1", 7001), ("a-2", "192.0.2.2", 7002))
    text = render(placed, "/run/c")
    assert "uri /a/health " in text
    assert "server a-1 192.0.2.1:7001\n    server a-2 192.0.2.2:7002" in text


def test_exposures_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(BadDeclaration, match="different checks"):
        backends([exposing("a", ("/a", "/one")), exposing("b", ("/a/", "/two"))])
    with pytest.raises(BadDeclaration, match="same backend name"):
        backends([exposing("a", ("/a-b", "/h")), exposing("b", ("/a_b", "/h"))])


@pytest.mark.parametrize("prefix", ["hooks", "", "/a b", "/a\nserver evil", "/${HOME}", "/{"])
def test_a_prefix_that_could_say_something_else_to_haproxy_is_refused(prefix: str) -> None:
    with pytest.raises(BadDeclaration, match="not a path prefix"):
        backends([exposing("a", (prefix, "/h"))])


def test_the_real_components_are_behind_their_paths() -> None:
    config = Config(arsrv=Arsrv(count=3))
    found = {backend.prefix: backend for backend in backends(site_of(config).placed)}
    assert set(found) == {"/hooks", "/portal", "/"}
    assert [name for name, _, _ in found["/hooks"].servers] == ["arsrv-1", "arsrv-2", "arsrv-3"]


def test_the_configuration_is_checked_with_the_certificate_that_the_unit_gets() -> None:
    file = rendered("ardpx")["haproxy.cfg"]
    assert file.reloads == ("",)
    assert "CREDENTIALS_DIRECTORY=/var/lib/alpha-ren/identity" in file.check
    assert '"${CREDENTIALS_DIRECTORY}/console.pem"' in file.content
    assert "$control" not in file.content


def test_what_the_proxy_says_by_itself_is_a_problem_as_everywhere() -> None:
    text = rendered("ardpx")["haproxy.cfg"].content
    lines = re.findall(r"http-error status (\d+) content-type \S+ string '(.*)' hdr", text)
    assert len(lines) == len(PROBLEMS)
    for status, body in lines:
        problem = msgspec.json.decode(body, type=Problem)
        assert (problem.status, bool(problem.code), bool(problem.message)) == (int(status), True, True)

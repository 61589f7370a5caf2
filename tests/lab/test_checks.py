"""Every rendered file that has a checker passes it on the firmware, and does not once a line of it is wrong."""

from collections.abc import Iterator

import pytest

from appliance.config import Config, Mail
from scripts.labs.place import Machine
from scripts.labs.session import Lab
from tests.lab import plans
from tests.unit.placement import rendered

MAIL = Mail(smarthost="mail.example.org:587", recipients=("ops@example.org",))
CASES = [
    ("ardpx", "haproxy.cfg", "    no-such-keyword"),
    ("dns", "unbound.conf", "no-such-option: 1"),
    ("armail", "main.cf", "no_such_parameter = 1"),
    ("armail", "master.cf", "127.0.0.1:smtp inet n"),
]
IDENTITY = "/var/lib/alpha-ren/identity"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Lab(plans.one_box()) as lab:
        box = lab.machine("box")
        key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem"
        made = f"openssl req -x509 {key} -out crt.pem -subj /CN=box -days 2 && cat crt.pem key.pem > console.pem"
        box.run(["sh", "-c", f"mkdir -p {IDENTITY} /run/alpha-ren/dns && cd {IDENTITY} && {made}"])
        yield box


def accepted(machine: Machine, component: str, name: str, *more: str) -> bool:
    """Whether the checker accepts the rendered file with more lines at its end."""
    file = rendered(component, Config(mail=MAIL), resolvers=("192.0.2.53",))[name]
    machine.run(["sh", "-c", "cat > /run/candidate"], stdin="\n".join([file.content, *more, ""]))
    return machine.succeeds([word.replace("{path}", "/run/candidate") for word in file.check])


@pytest.mark.parametrize(("component", "name", "wrong"), CASES)
def test_a_checker_tells_right_from_wrong(machine: Machine, component: str, name: str, wrong: str) -> None:
    assert accepted(machine, component, name)
    assert not accepted(machine, component, name, wrong)
    assert machine.run(["ls", "/tmp"]).stdout.count("tmp.") == 0, "a checker leaves nothing behind"

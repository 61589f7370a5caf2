"""Mail on a whole box: it waits while the smarthost or Postfix is away, and while nobody has configured it."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from appliance import config
from appliance.armail.spec import NOT_CONFIGURED
from scripts.labs import topology
from tests.lab.box import Box, started
from tests.lab.systems import Record, post, smtp_sink, wait_until

PORT = 2525
POSTFIX = "armail-postfix"
CONF = "/run/alpha-ren/armail"


def settings() -> config.Config:
    """A configuration with the outside host as smarthost."""
    outside = topology.address(topology.default(), "outside", "uplink")
    mail = config.Mail(smarthost=f"{outside}:{PORT}", sender="box@example.org", recipients=("ops@example.org",))
    return config.Config(machine=config.Machine(name="box"), mail=mail)


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that does not know yet where mail goes, with a flow that delivers to nobody."""
    with started(msgspec.structs.replace(settings(), mail=config.Mail())) as box:
        deliver = {"kind": "http", "url": f"http://{box.outside.address()}/nobody", "retry": {"attempts": 1}}
        box.put_flow({"name": "doomed", "deliver": deliver})
        yield box


def provoke_notice(box: Box) -> str:
    """Have a message die, and return its id, which the notice names."""
    answer = post(box.outside, box.hook("doomed"), "{}")
    assert answer.status == 202
    identity: str = answer.json()["id"]
    return identity


def waiting_notices(box: Box) -> int:
    """Return how many notices nobody has taken yet."""
    stats = json.loads(box.machine.run(["alpha-ren", "queue", "--json"]).stdout)
    return sum(depth["ready"] for depth in stats["depths"] if depth["address"].endswith("notice.mail"))


def in_postfix(box: Box) -> int:
    """Return how many mails Postfix keeps."""
    output = box.machine.run(["postqueue", "-c", CONF, "-j"]).stdout
    return len(output.splitlines())


def flush(box: Box) -> None:
    """Have Postfix try everything now, as a person would."""
    box.machine.run(["postqueue", "-c", CONF, "-f"])


def test_before_mail_is_configured_notices_wait_in_the_queue(box: Box) -> None:
    provoke_notice(box)
    wait_until("the notice waits", lambda: waiting_notices(box) == 1)
    assert NOT_CONFIGURED in box.status()["notes"]
    assert NOT_CONFIGURED in box.machine.logs(box.unit("armail"))
    assert not box.machine.succeeds(["systemctl", "is-active", box.unit(POSTFIX)])


def test_once_it_is_configured_what_waited_goes_out(box: Box, tmp_path: Path) -> None:
    document = msgspec.toml.encode(settings()).decode()
    mails = Record(tmp_path / "mails")
    with smtp_sink(box.outside, mails, PORT):
        box.machine.run(["sh", "-c", "cat > /tmp/new.toml && alpha-ren apply /tmp/new.toml"], stdin=document)
        [mail] = mails.wait_for(1, deadline_s=60)
    assert (mail["from"], mail["to"]) == ("box@example.org", ["ops@example.org"])
    assert mail["subject"].startswith("[box] ")
    assert waiting_notices(box) == 0
    assert NOT_CONFIGURED not in box.status()["notes"]
    box.wait_ready()


def test_a_smarthost_that_is_away_gets_the_mail_once_when_it_is_back(box: Box, tmp_path: Path) -> None:
    identity = provoke_notice(box)
    wait_until("Postfix keeps the mail", lambda: in_postfix(box) == 1)
    assert waiting_notices(box) == 0
    box.kill(POSTFIX, signal.SIGKILL)
    wait_until("Postfix is back", lambda: box.machine.succeeds(["systemctl", "is-active", box.unit(POSTFIX)]))
    mails = Record(tmp_path / "mails")
    with smtp_sink(box.outside, mails, PORT):
        flush(box)
        [mail] = mails.wait_for(1, deadline_s=90)
        wait_until("Postfix has nothing left", lambda: in_postfix(box) == 0)
    assert identity in mail["body"]
    assert len(mails.lines()) == 1


def test_a_notice_from_while_postfix_was_away_is_sent_when_it_is_back(box: Box, tmp_path: Path) -> None:
    box.keep_down_when_killed(POSTFIX)
    box.kill(POSTFIX, signal.SIGKILL)
    identity = provoke_notice(box)
    wait_until("ARMAIL has heard a refusal", lambda: "does not take mail yet" in box.machine.logs(box.unit("armail")))
    mails = Record(tmp_path / "mails")
    with smtp_sink(box.outside, mails, PORT):
        box.let_restart(POSTFIX)
        [mail] = mails.wait_for(1, deadline_s=90)
    assert identity in mail["body"]
    box.wait_ready()


def test_postfix_answers_nobody_but_its_own_namespace(box: Box) -> None:
    listening = box.machine.run(["ip", "netns", "exec", "armail", "ss", "-Hltn"]).stdout.split("\n")
    assert [line.split()[3] for line in listening if line] == ["127.0.0.1:25"]

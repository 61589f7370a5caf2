"""First boot on the firmware's own tree: seed, identity, pairing, the local screen, the command."""

import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from appliance import config
from scripts.labs import topology
from scripts.labs.session import Lab
from tests.lab.box import CONFIG_CREDENTIAL, Box, started
from tests.lab.systems import wait_until
from tests.terminal import Serial

IDENTITY = "/var/lib/alpha-ren/identity"
SETTINGS = config.Config(machine=config.Machine(name="plant-7"))


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A ready box that nobody has set up yet."""
    with started(SETTINGS, set_up=False) as box:
        yield box


@contextmanager
def screen(box: Box) -> Iterator[Serial]:
    """The local screen on a terminal that does not know its size."""
    master, slave = os.openpty()
    process = box.machine.popen(
        ["/usr/bin/python3", "-m", "firstboot.screen"], stdin=slave, stdout=slave, stderr=subprocess.PIPE,
        env={"TERM": "vt220"},
    )  # fmt: skip
    os.close(slave)
    serial = Serial(master)
    try:
        yield serial
    finally:
        process.terminate()
        process.communicate(timeout=30)
        serial.hang_up()


def ask(box: Box, call: str) -> dict[str, Any]:
    """Return the supervisor's reply to a call on its control socket, made on the box."""
    program = (
        "import asyncio, msgspec; from appliance.supervisor.ask import ask; "
        f"print(msgspec.json.encode(asyncio.run(ask({call!r}, msgspec.Raw))).decode())"
    )
    reply: dict[str, Any] = json.loads(box.machine.run(["/usr/bin/python3", "-c", program]).stdout)
    return reply


def pair(box: Box, code: str) -> int:
    """Send a pairing code and a password as the web wizard does; return the HTTP status."""
    return box.console.set_up(code).status


def test_the_seed_is_in_force(box: Box) -> None:
    status = box.status()
    assert (status["name"], status["config_in_force"]) == ("plant-7", "file")


def test_the_uplink_serves_the_certificate_whose_fingerprint_the_box_shows(box: Box) -> None:
    authority = box.machine.run(["cat", f"{IDENTITY}/ca.pem"]).stdout
    context = ssl.create_default_context(cadata=authority)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("plant-7", "localhost", "127.0.0.1"):
        with (
            socket.create_connection(("127.0.0.1", box.machine.published(443)), timeout=20) as connection,
            context.wrap_socket(connection, server_hostname=name) as tls,
        ):
            certificate = tls.getpeercert(binary_form=True)
    assert certificate is not None
    fingerprint = box.status()["fingerprint"]
    assert ssl.DER_cert_to_PEM_cert(certificate) in box.machine.run(["cat", f"{IDENTITY}/console.pem"]).stdout
    assert fingerprint == box.machine.run(["cat", f"{IDENTITY}/fingerprint"]).stdout.strip()


def test_the_screen_shows_what_status_says_and_outlives_the_supervisor(box: Box) -> None:
    status = box.status()
    with screen(box) as serial:
        painted = serial.read_until("arsrv-2")
        for text in ("plant-7", "Ready", status["console_url"], status["fingerprint"][:47], status["pairing"]["code"]):
            assert text in painted
        box.machine.run(["systemctl", "stop", "alpha-ren-supervisor.service"])
        serial.read_until("no answer from the supervisor")
        box.machine.run(["systemctl", "start", "alpha-ren-supervisor.service"])
        serial.read_until("Ready")


def test_the_screen_shows_the_journal(box: Box) -> None:
    with screen(box) as serial:
        serial.read_until("arsrv-2")
        serial.type("l")
        serial.read_until("Reading the journal.")
        serial.read_until("systemd[1]")


def test_the_command_answers_about_the_machine(box: Box) -> None:
    run = box.machine.run
    assert "READY" in run(["alpha-ren", "status"]).stdout
    assert run(["alpha-ren", "health"]).stdout == "ready\n"
    settled = "Nothing to do: the machine is as it should be.\n"
    wait_until("nothing is left to do", lambda: run(["alpha-ren", "plan"]).stdout == settled)
    assert "arsrv-1" in run(["alpha-ren", "firewall"]).stdout
    assert json.loads(run(["alpha-ren", "queue", "--json"]).stdout)["depths"]
    assert run(["alpha-ren", "logs", "queue", "-n", "1"]).stdout
    refused = run(["alpha-ren", "logs", "nothing"], check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("not-found: ")


def test_an_invalid_configuration_is_refused_and_a_valid_one_is_put_in_force(box: Box) -> None:
    run = box.machine.run
    before = run(["cat", "/var/lib/alpha-ren/config.toml"]).stdout
    run(["sh", "-c", "echo 'nonsense = 1' > /run/bad.toml"])
    for command in ("check", "apply"):
        refused = run(["alpha-ren", command, "/run/bad.toml"], check=False)
        assert refused.returncode == 2
        assert refused.stderr.startswith("invalid-config: ")
    assert run(["cat", "/var/lib/alpha-ren/config.toml"]).stdout == before
    run(["sh", "-c", "(cat /var/lib/alpha-ren/config.toml; echo '# again') > /run/good.toml"])
    assert run(["alpha-ren", "apply", "/run/good.toml"]).stdout.startswith("In force: ")
    assert run(["cat", "/var/lib/alpha-ren/config.toml"]).stdout == before + "# again\n"
    run(["alpha-ren", "health", "--wait", "--timeout", "60"], deadline_s=90)


def test_pairing_wants_the_shown_code_once_and_then_a_person_at_the_console(box: Box) -> None:
    assert pair(box, "XXXX-XXXX") == 403
    code = box.status()["pairing"]["code"]
    assert pair(box, code) == 303
    assert "pairing" not in box.status() or box.status()["pairing"] is None
    assert pair(box, code) == 403
    box.machine.kill(box.machine.main_pid("alpha-ren-supervisor.service"), signal.SIGKILL)
    wait_until("the supervisor is back", lambda: box.machine.succeeds(["alpha-ren", "health"]))
    assert box.status().get("pairing") is None, "a new supervisor hands out no code by itself"
    with screen(box) as serial:
        serial.read_until("press F4")
        serial.type("\x1bOS")
        serial.read_until("for the web console")
    assert len(ask(box, "status")["pairing"]["code"]) == 9


def test_identity_and_configuration_outlast_a_reboot(box: Box) -> None:
    def kept() -> str:
        return box.machine.run(["sh", "-c", f"cat {IDENTITY}/* /var/lib/alpha-ren/config.toml | sha256sum"]).stdout

    before = kept()
    box.machine.reboot()
    assert kept() == before
    box.wait_ready()
    assert box.machine.logs("alpha-ren-identity.service", "--boot=0").count("seed: unchanged") == 1


def test_an_invalid_seed_leaves_the_machine_running_and_is_shown() -> None:
    plan = topology.default()
    [machine] = plan.machine
    credentials = {**machine.credentials, CONFIG_CREDENTIAL: '[machine]\nnaem = "x"\n'}
    machine = msgspec.structs.replace(machine, credentials=credentials)
    with Lab(msgspec.structs.replace(plan, machine=(machine,))) as lab:
        box = Box(lab)
        box.wait_ready()
        status = box.status()
        assert status["config_in_force"] == "default"
        assert status["last_error"]["code"] == "invalid-config"
        assert "naem" in status["last_error"]["message"]
        assert not box.machine.succeeds(["test", "-e", "/var/lib/alpha-ren/config.toml"])
        with screen(box) as serial:
            serial.read_until("invalid-config")

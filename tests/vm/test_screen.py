"""The local screen on the serial line: what a person standing at the box sees."""

import hashlib
import ssl

from tests.vm.driver import VirtualMachine

_REDRAW = b"\x0c"
# Rows are painted from the top down, and this is how the last one ends.
_LAST_WORD = b"repaints"


def certificate_fingerprint(port: int) -> str:
    """SHA-256 of the certificate that the uplink shows, as browsers write it."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=60)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()


def screen(machine: VirtualMachine, wanted: str) -> str:
    """The text of the screen, drawn anew, once `wanted` is on it."""
    since = machine.console_position()
    machine.type(_REDRAW)
    machine.expect_on_console(wanted.encode(), since=since)
    machine.expect_on_console(_LAST_WORD, since=since)
    return machine.console_text(since)


def test_it_shows_the_url_that_leads_to_the_box_from_outside(machine: VirtualMachine) -> None:
    assert machine.url in screen(machine, machine.url)


def test_it_shows_the_fingerprint_of_the_certificate_the_uplink_serves(machine: VirtualMachine) -> None:
    expected = certificate_fingerprint(machine.forwards.https.host_port)
    shown = "".join(character for character in screen(machine, machine.url) if character in "0123456789ABCDEF")
    assert expected in shown


def test_the_first_screen_shows_the_same_as_the_serial_line(machine: VirtualMachine) -> None:
    machine.screenshot(machine.console_log / "tty1.png")
    assert machine.url in machine.output("cat", "/dev/vcs1")


def test_it_shows_the_pairing_code(machine: VirtualMachine) -> None:
    code = machine.status()["pairing"]["code"]
    assert code in screen(machine, code)

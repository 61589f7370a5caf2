"""The machine's identity: made once, whole or not at all, renewed when it is due."""

import contextlib
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from firstboot.identity import DAY_S, InvalidOutsideUrl, Record, console_names, ensure, outside_host, sane_now

NOW = 1_790_000_000.0
NAMES = console_names("box-1", "https://192.0.2.7:8443/")
MACHINE_ID = "0123456789abcdef0123456789abcdef"


def make(state: Path, *, names: tuple[str, ...] = NAMES, now: float = NOW) -> Record:
    return ensure(state, names, now=now, machine_id=MACHINE_ID)


def content(state: Path) -> dict[str, bytes]:
    """Return every file below `state` by its path, hidden ones too."""
    return {str(path.relative_to(state)): path.read_bytes() for path in state.rglob("*") if path.is_file()}


def leaf(state: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates((state / "identity/console.pem").read_bytes())[0]


def test_an_identity_is_complete_and_its_secrets_are_for_root_alone(tmp_path: Path) -> None:
    record = make(tmp_path)
    folder = tmp_path / "identity"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {
        "ca.key": 0o600, "ca.pem": 0o644, "console.pem": 0o600, "fingerprint": 0o644, "machine-id": 0o644,
        "record.json": 0o600,
    }  # fmt: skip
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "machine-id").read_text() == MACHINE_ID + "\n"
    assert record.machine_id == MACHINE_ID
    assert [path.name for path in tmp_path.iterdir()] == ["identity"]


def test_the_fingerprint_is_the_certificates_sha256_as_browsers_show_it(tmp_path: Path) -> None:
    record = make(tmp_path)
    shown = (tmp_path / "identity/fingerprint").read_text()
    assert shown == leaf(tmp_path).fingerprint(hashes.SHA256()).hex(":").upper() + "\n"
    assert shown == record.fingerprint + "\n"
    assert len(record.fingerprint) == 95


def test_the_certificate_is_what_browsers_want_of_a_server(tmp_path: Path) -> None:
    make(tmp_path)
    certificate = leaf(tmp_path)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [oid.dotted_string for oid in usage] == ["1.3.6.1.5.5.7.3.1"]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["box-1", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "192.0.2.7"]
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life.days <= 825
    assert certificate.not_valid_before_utc.timestamp() == NOW - DAY_S
    authority = x509.load_pem_x509_certificate((tmp_path / "identity/ca.pem").read_bytes())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    certificate.verify_directly_issued_by(authority)


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Serve one TLS handshake with the identity in tmp_path, made now, on a port of the loopback."""
    make(tmp_path, now=time.time())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "identity/console.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            connection, _ = listener.accept()
            connection.settimeout(20)
            with context.wrap_socket(connection, server_side=True) as tls:
                tls.sendall(b"hello")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[:2]
        thread.join(timeout=20)
        assert not thread.is_alive()


@pytest.mark.parametrize("name", ["box-1", "localhost", "127.0.0.1", "192.0.2.7"])
def test_a_strict_client_that_trusts_the_authority_accepts_every_name(
    tmp_path: Path, tls_server: tuple[str, int], name: str
) -> None:
    context = ssl.create_default_context(cafile=str(tmp_path / "identity/ca.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(tls_server, timeout=20) as connection,
        context.wrap_socket(connection, server_hostname=name) as tls,
    ):
        assert tls.recv(5) == b"hello"


def test_running_again_changes_nothing(tmp_path: Path) -> None:
    first = make(tmp_path)
    before = content(tmp_path)
    assert make(tmp_path, now=NOW + DAY_S) == first
    assert content(tmp_path) == before


def test_running_again_does_not_load_cryptography(tmp_path: Path) -> None:
    make(tmp_path)
    code = (
        "import sys; from pathlib import Path; from firstboot.identity import ensure; "
        f"ensure(Path({str(tmp_path)!r}), {NAMES!r}, now={NOW}, machine_id={MACHINE_ID!r}); "
        "sys.exit('cryptography' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("names", "now"),
    [
        (console_names("box-1", "https://outside.example/"), NOW),
        (console_names("renamed", ""), NOW),
        (NAMES, NOW + 600 * DAY_S),
        (NAMES, NOW - 30 * DAY_S),
    ],
    ids=["another outside host", "another machine name", "near its end", "made while the clock was ahead"],
)
def test_a_certificate_is_renewed_when_due_by_the_same_authority(
    tmp_path: Path, names: tuple[str, ...], now: float
) -> None:
    first = make(tmp_path)
    authority = (tmp_path / "identity/ca.pem").read_bytes()
    second = make(tmp_path, names=names, now=now)
    assert second.fingerprint != first.fingerprint
    assert second.machine_id == first.machine_id
    assert set(names) <= set(second.names)
    assert second.not_before <= now < second.not_after
    assert (tmp_path / "identity/ca.pem").read_bytes() == authority
    assert (tmp_path / "identity/fingerprint").read_text() == second.fingerprint + "\n"
    assert make(tmp_path, names=names, now=now) == second


def test_a_name_that_is_gone_is_no_reason_for_a_new_fingerprint(tmp_path: Path) -> None:
    first = make(tmp_path)
    assert make(tmp_path, names=console_names("box-1", "")) == first


@pytest.mark.parametrize("lost", ["record.json", "fingerprint", "console.pem"])
def test_what_can_be_derived_is_made_again_with_the_same_authority(tmp_path: Path, lost: str) -> None:
    make(tmp_path)
    authority = (tmp_path / "identity/ca.pem").read_bytes()
    (tmp_path / "identity" / lost).unlink()
    record = make(tmp_path)
    assert (tmp_path / "identity/ca.pem").read_bytes() == authority
    assert (tmp_path / "identity/fingerprint").read_text() == record.fingerprint + "\n"
    assert leaf(tmp_path).fingerprint(hashes.SHA256()).hex(":").upper() == record.fingerprint


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_damaged_authority_is_set_aside_and_a_new_identity_made(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make(tmp_path)
    (tmp_path / "identity/ca.pem").write_bytes(damage)
    (tmp_path / "identity/record.json").unlink()
    second = make(tmp_path)
    assert second.fingerprint != first.fingerprint
    assert (tmp_path / "identity.damaged/ca.pem").read_bytes() == damage
    assert "damaged" in capsys.readouterr().err


class PowerCut(BaseException):
    """Not an Exception, as after a power cut no handler runs."""


def cut_power_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the `step`-th write, rename or removal from now on be the last thing that does not happen any more."""
    remaining = [step]

    def guard(name: str, module: object) -> None:
        real = getattr(module, name)

        def guarded(*args: object, **kwargs: object) -> object:
            remaining[0] -= 1
            if remaining[0] <= 0:
                raise PowerCut
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, guarded)

    for name in ("fsync", "rename", "replace"):
        guard(name, os)
    guard("rmtree", shutil)


@pytest.mark.parametrize("step", range(1, 20))
def test_a_power_cut_while_it_is_made_leaves_nothing_or_all_of_it(tmp_path: Path, step: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        cut_power_at(monkeypatch, step)
        with contextlib.suppress(PowerCut):
            make(tmp_path)
    folder = tmp_path / "identity"
    if folder.exists():
        assert len(list(folder.iterdir())) == 6
    record = make(tmp_path)
    assert (folder / "fingerprint").read_text() == record.fingerprint + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["identity"]


@pytest.mark.parametrize("step", range(1, 12))
def test_a_power_cut_while_it_is_renewed_is_mended_at_the_next_start(tmp_path: Path, step: int) -> None:
    make(tmp_path)
    authority = (tmp_path / "identity/ca.pem").read_bytes()
    late = NOW + 600 * DAY_S
    with pytest.MonkeyPatch.context() as monkeypatch:
        cut_power_at(monkeypatch, step)
        with contextlib.suppress(PowerCut):
            make(tmp_path, now=late)
    record = make(tmp_path, now=late)
    assert leaf(tmp_path).fingerprint(hashes.SHA256()).hex(":").upper() == record.fingerprint
    assert (tmp_path / "identity/fingerprint").read_text() == record.fingerprint + "\n"
    assert (tmp_path / "identity/ca.pem").read_bytes() == authority
    assert make(tmp_path, now=late) == record
    assert len(list((tmp_path / "identity").iterdir())) == 6


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_clock_is_never_before_the_build_of_the_firmware(tmp_path: Path) -> None:
    epoch = tmp_path / "clock-epoch"
    assert sane_now(12.0, epoch) == 12.0
    epoch.touch()
    os.utime(epoch, (NOW, NOW))
    assert sane_now(12.0, epoch) == NOW
    assert sane_now(NOW + 5, epoch) == NOW + 5


def test_a_box_that_starts_in_1970_has_a_certificate_that_holds_when_its_clock_is_right(tmp_path: Path) -> None:
    epoch = tmp_path / "clock-epoch"
    epoch.touch()
    os.utime(epoch, (NOW, NOW))
    record = make(tmp_path, now=sane_now(0.0, epoch))
    assert record.not_before < NOW < NOW + 400 * DAY_S < record.not_after


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://box.example", "box.example"),
        ("https://BOX.example:8443/", "box.example"),
        ("https://[2001:db8::1]:8443/", "2001:db8::1"),
        ("https://192.0.2.7/", "192.0.2.7"),
        ("https://localhost:40443/", "localhost"),
    ],
)
def test_the_outside_host_is_taken_from_its_url(url: str, host: str) -> None:
    assert outside_host(url) == host


@pytest.mark.parametrize(
    "url", ["", "box.example", "http://box.example/", "https://", "https://a b/", "https://[::1/", "https://x:99999/"]
)
def test_what_is_no_https_url_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(InvalidOutsideUrl) as caught:
        outside_host(url)
    assert caught.value.problem.code == "invalid-outside-url"
    assert "https://HOST" in caught.value.problem.hint


def test_names_are_not_repeated() -> None:
    assert console_names("box", "https://localhost:1/") == ("box", "localhost", "127.0.0.1", "::1")

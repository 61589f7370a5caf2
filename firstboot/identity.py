"""The machine's identity, made on the box: its id, its certificate authority, the console's certificate.

All of it is in /var/lib/alpha-ren/identity (0700). The folder appears complete or not at all; from then on
`console.pem` is the one truth about the certificate, and what is derived from it (`fingerprint`, `record.json`) is
mended at the next start where a power cut came between. Nothing is changed where nothing is due, so it can run at every
boot and from a timer.
"""

import hashlib
import ipaddress
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from appliance import config
from appliance.durable import place, sync, write
from appliance.errors import NOT_DECODED, ApplianceError, InvalidInput

if TYPE_CHECKING:
    from firstboot.authority import Console

STATE = Path("/var/lib/alpha-ren")
MACHINE_ID = Path("/etc/machine-id")
CLOCK_EPOCH = Path("/usr/lib/clock-epoch")
OUTSIDE_URL = "alpha-ren.outside-url"

DAY_S = 86400.0
RENEW_BEFORE_S = 270 * DAY_S
"""A third of a certificate's life, since a box may run for long between two boots."""


class InvalidOutsideUrl(InvalidInput):
    """The credential that says under which URL the outside reaches the box is not such a URL."""

    code = "invalid-outside-url"
    hint = f"Give the credential {OUTSIDE_URL} the form https://HOST[:PORT]/, or leave it out."


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the identity is; `digest` is the SHA-256 of console.pem, times are Unix times."""

    machine_id: str
    names: tuple[str, ...]
    not_before: float
    not_after: float
    fingerprint: str
    digest: str
    version: int = 1


def ensure(state: Path, names: tuple[str, ...], *, now: float, machine_id: str) -> Record:
    """Return the identity below `state`, made or renewed where that is due.

    `names` are all names the console is reached by, the machine's own first; `machine_id` is used for a new identity
    only. Raises OSError where the disk does not take it, and then nothing has changed.
    """
    folder = state / "identity"
    for remains in state.glob(".identity.*"):
        shutil.rmtree(remains)
    if not folder.is_dir():
        return _create(folder, names, now=now, machine_id=machine_id)
    for candidate in folder.glob(".*"):
        candidate.unlink()
    record = _read(folder)
    if record is None or _renewal_is_due(record, names, now=now):
        return _renew(folder, names, now=now, machine_id=machine_id)
    if not _same(folder / "fingerprint", _line(record.fingerprint)):
        place(folder / "fingerprint", _line(record.fingerprint), mode=0o644)
    return record


def _create(folder: Path, names: tuple[str, ...], *, now: float, machine_id: str) -> Record:
    # Imported here because cryptography is the slowest import of a boot, and most boots need none of it.
    from firstboot.authority import create_authority, issue_console

    authority = create_authority(f"ALPHA-REN {names[0]} {machine_id[:8]}")
    console = issue_console(authority, names, now)
    record = _record(console, machine_id, names)
    building = Path(tempfile.mkdtemp(prefix=".identity.", dir=folder.parent))
    try:
        write(building / "machine-id", _line(machine_id), mode=0o644)
        write(building / "ca.key", authority.key)
        write(building / "ca.pem", authority.certificate, mode=0o644)
        write(building / "console.pem", console.bundle)
        write(building / "fingerprint", _line(console.fingerprint), mode=0o644)
        write(building / "record.json", msgspec.json.encode(record))
        sync(building)
        os.rename(building, folder)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
        raise
    sync(folder.parent)
    return record


def _renew(folder: Path, names: tuple[str, ...], *, now: float, machine_id: str) -> Record:
    from firstboot.authority import Authority, issue_console

    try:
        kept_id = (folder / "machine-id").read_text(encoding="ascii").strip()
        authority = Authority(certificate=(folder / "ca.pem").read_bytes(), key=(folder / "ca.key").read_bytes())
        console = issue_console(authority, names, now)
    except (OSError, ValueError) as error:
        # A box whose authority is damaged goes on with a new one: people see a new fingerprint, the journal says why.
        print(f"identity: it is damaged ({error}), kept as identity.damaged; a new one is made", file=sys.stderr)
        damaged = folder.with_name("identity.damaged")
        shutil.rmtree(damaged, ignore_errors=True)
        os.rename(folder, damaged)
        return _create(folder, names, now=now, machine_id=machine_id)
    record = _record(console, kept_id, names)
    place(folder / "console.pem", console.bundle)
    place(folder / "fingerprint", _line(console.fingerprint), mode=0o644)
    place(folder / "record.json", msgspec.json.encode(record))
    return record


def _record(console: "Console", machine_id: str, names: tuple[str, ...]) -> Record:
    return Record(
        machine_id=machine_id,
        names=names,
        not_before=console.not_before,
        not_after=console.not_after,
        fingerprint=console.fingerprint,
        digest=hashlib.sha256(console.bundle).hexdigest(),
    )


def _read(folder: Path) -> Record | None:
    """Return the record if it speaks of the certificate that is there."""
    try:
        record = msgspec.json.decode((folder / "record.json").read_bytes(), type=Record)
        whole = all((folder / name).is_file() for name in ("machine-id", "ca.pem", "ca.key"))
        digest = hashlib.sha256((folder / "console.pem").read_bytes()).hexdigest()
    except (OSError, *NOT_DECODED):
        return None
    return record if whole and digest == record.digest else None


def _renewal_is_due(record: Record, names: tuple[str, ...], *, now: float) -> bool:
    # A name too many does no harm until the next renewal, and a new fingerprint is a nuisance to people.
    if not set(names) <= set(record.names):
        return True
    made_in_the_future = record.not_before > now
    return made_in_the_future or now > record.not_after - RENEW_BEFORE_S


def _line(text: str) -> bytes:
    return f"{text}\n".encode("ascii")


def _same(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def console_names(machine: str, outside_url: str) -> tuple[str, ...]:
    """Return the names of the console: the machine's, the local ones, the host of `outside_url` (may be empty).

    Raises InvalidOutsideUrl.
    """
    names = [machine, "localhost", "127.0.0.1", "::1"]
    if outside_url:
        names.append(outside_host(outside_url))
    return tuple(dict.fromkeys(names))


def outside_host(url: str) -> str:
    """Return the host of an https URL, lower case, or raise InvalidOutsideUrl."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidOutsideUrl(f"The outside URL is not valid: {error}.") from error
    named = re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", host)
    if parts.scheme != "https" or not (named or _is_address(host)):
        raise InvalidOutsideUrl("The outside URL must be https:// and a host name or address.")
    return host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def sane_now(clock: float, epoch_file: Path = CLOCK_EPOCH) -> float:
    """Return the time as Unix time, and never one before this firmware was built (systemd(1), /usr/lib/clock-epoch)."""
    try:
        return max(clock, epoch_file.stat().st_mtime)
    except FileNotFoundError:
        return clock


def first_machine_id(path: Path = MACHINE_ID) -> str:
    """Return the id this boot runs under (machine-id(5)), or a new one where there is none yet."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        text = ""
    return text if re.fullmatch(r"[0-9a-f]{32}", text) else uuid.uuid4().hex


def machine_name(path: Path) -> str:
    """Return the machine's name in the configuration in force; the default name where there is none that is valid."""
    try:
        return config.load(path).machine.name
    except config.InvalidConfig:
        return config.Machine().name


def outside_url() -> str:
    """Return the credential with the outside's URL, empty where none was given."""
    folder = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials/@system"))
    try:
        return (folder / OUTSIDE_URL).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def main() -> int:
    """Make or renew the identity; 0 when it is there."""
    name = machine_name(STATE / "config.toml")
    try:
        names = console_names(name, outside_url())
    except InvalidOutsideUrl as error:
        print(f"{error.problem.code}: {error.message} {error.advice}", file=sys.stderr)
        names = console_names(name, "")
    try:
        STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        record = ensure(STATE, names, now=sane_now(time.time()), machine_id=first_machine_id())
    except (OSError, ApplianceError) as error:
        print(f"identity-not-made: {error}", file=sys.stderr)
        return 1
    print(f"identity: {name}, certificate {record.fingerprint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The configuration that comes with the machine: a systemd credential, else a disk labelled ALPHAREN-SEED.

A seed is put in force at first boot and whenever its content is another than last time, so what a person changed on the
box stays until somebody brings a new seed. One that does not validate changes nothing; why is kept for the screen and
`status`.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from appliance import config
from appliance.contracts.machine import SEED_REFUSED, SeedRefusal
from appliance.durable import place
from appliance.errors import NOT_DECODED, ApplianceError, InvalidInput

STATE = Path("/var/lib/alpha-ren")
CREDENTIAL = "alpha-ren.config"
DISK = Path("/dev/disk/by-label/ALPHAREN-SEED")
DISK_FILE = "appliance.toml"
MOST_BYTES = 1024 * 1024
MOUNT_DEADLINE_S = 20.0

Outcome = Literal["none", "unchanged", "applied", "refused"]
Read = Callable[[], bytes]


class SeedUnreadable(InvalidInput):
    """A seed is there and cannot be read."""

    code = "seed-unreadable"
    hint = f"A seed disk needs a file system that Linux reads and {DISK_FILE} at its top, at most 1 MiB of UTF-8 text."


class SeedRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The seed in force: where it came from, its SHA-256, when it was applied (Unix time)."""

    source: str
    digest: str
    at: float
    version: int = 1


class Seed(msgspec.Struct, frozen=True):
    """A seed that is offered: what to call its source, and how to read it (raises OSError or SeedUnreadable)."""

    source: str
    read: Read


def offered(credentials: Path, disk: Path = DISK) -> Seed | None:
    """Return the first seed there is: the credential in the folder `credentials`, then the disk; None without one."""
    credential = credentials / CREDENTIAL
    if credential.exists():
        return Seed("credential", lambda: read_bounded(credential))
    if disk.exists():
        return Seed("disk", lambda: read_disk(disk))
    return None


def import_seed(state: Path, seed: Seed | None, *, now: float) -> Outcome:
    """Put `seed` in force as `state`/config.toml where it is new and valid, and return what became of it.

    Raises OSError where the disk does not take it, and then the configuration is what it was.
    """
    refused = state / Path(SEED_REFUSED).name
    if seed is None:
        refused.unlink(missing_ok=True)
        return "none"
    content = b""
    try:
        content = _content(seed)
        digest = hashlib.sha256(content).hexdigest()
        if _is_in_force(state, digest):
            refused.unlink(missing_ok=True)
            return "unchanged"
        config.parse(_text(content))
    except ApplianceError as error:
        refusal = SeedRefusal(
            source=seed.source, digest=hashlib.sha256(content).hexdigest(), at=now, problem=error.problem
        )
        place(refused, msgspec.json.encode(refusal))
        print(f"seed from {seed.source}: {error.problem.code}: {error.message} {error.advice}", file=sys.stderr)
        return "refused"
    # The configuration first: after a power cut between the two the same seed is simply put in force again.
    place(state / "config.toml", content)
    place(state / "seed.json", msgspec.json.encode(SeedRecord(source=seed.source, digest=digest, at=now)))
    refused.unlink(missing_ok=True)
    return "applied"


def _content(seed: Seed) -> bytes:
    try:
        return seed.read()
    except OSError as error:
        raise SeedUnreadable(f"The seed from {seed.source} cannot be read: {error}.") from error


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SeedUnreadable(f"The seed is not UTF-8 text: {error}.") from error


def _is_in_force(state: Path, digest: str) -> bool:
    try:
        record = msgspec.json.decode((state / "seed.json").read_bytes(), type=SeedRecord)
    except (FileNotFoundError, *NOT_DECODED):
        return False
    return record.digest == digest and (state / "config.toml").is_file()


def read_bounded(path: Path) -> bytes:
    """Return the file's content, or raise SeedUnreadable where it is larger than a seed may be."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise SeedUnreadable("The seed is larger than 1 MiB.")
    return content


def read_disk(disk: Path) -> bytes:
    """Return appliance.toml from the top of the file system on `disk`."""
    with mounted(disk) as folder:
        return read_bounded(folder / DISK_FILE)


@contextmanager
def mounted(disk: Path) -> Iterator[Path]:
    """Mount `disk` read-only on a folder of its own while the context lasts (mount(8)); raises SeedUnreadable."""
    with tempfile.TemporaryDirectory(prefix="alpha-ren-seed.", dir="/run") as folder:
        _run(("mount", "-o", "ro,nosuid,nodev,noexec", str(disk), folder))
        try:
            yield Path(folder)
        finally:
            _run(("umount", folder))


def _run(command: tuple[str, ...]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=MOUNT_DEADLINE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SeedUnreadable(f"The seed disk cannot be read: {error}.") from error
    if result.returncode:
        raise SeedUnreadable(f"The seed disk cannot be read: {result.stderr.strip()}.")


def main() -> int:
    """Import the seed, if there is one; 0 also when it was refused, since the machine then runs on what it has."""
    credentials = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials/@system"))
    try:
        STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        outcome = import_seed(STATE, offered(credentials), now=time.time())
    except OSError as error:
        print(f"seed-not-imported: {error}", file=sys.stderr)
        return 1
    print(f"seed: {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

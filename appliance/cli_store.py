"""`alpha-ren queue`, as far as it is about the queue as a whole: backup, restore, check, compact, keys."""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from appliance.cli_text import (
    DONE,
    FAILED,
    Command,
    ask_supervisor,
    confirm,
    harmless,
    person,
    print_json,
    size_text,
    time_text,
)
from appliance.contracts.letters import BackedUp, Checked, Compact, Compacted, Tend
from appliance.contracts.machine import Rotate, Rotated
from appliance.errors import ApplianceError, InvalidInput, Unavailable
from appliance.queue.restore import BESIDE, REFUSED, REPLACED, RESTORE, STORE
from appliance.queue.spec import BRIDGE
from appliance.queue.spec import NAME as QUEUE
from appliance.supervisor.unit_text import unit_name

STATE_DIRECTORY = Path(f"/var/lib/alpha-ren-{QUEUE}")
RESTART_S = 600.0
LONG_S = 3600.0
"""A backup or a check of a large queue on a slow disk takes its time."""


class CopyNotKept(ApplianceError):
    """A backup is not where it was wanted."""

    code = "copy-not-kept"
    hint = "The original is where it was."


class NotRestored(InvalidInput):
    """The queue is as it was."""

    code = "not-restored"
    hint = "`alpha-ren logs queue` has what is wrong with it. Nothing was changed."


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A backup has taken the place of the store, which is kept in this file."""

    replaced: str


def add_commands(add: Callable[[str, Command, str], argparse.ArgumentParser]) -> None:
    """Add the commands by `add`, which takes a name, what to run, and what it does."""
    backup = add("backup", _backup, "copy the queue, as it is at one moment, while it goes on")
    backup.add_argument("file", metavar="FILE", nargs="?", type=Path, help="where to; else beside the queue itself")
    restore = add("restore", _restore, "let a backup take the place of the queue, which is kept beside it")
    restore.add_argument("file", metavar="FILE", type=Path)
    restore.add_argument("--yes", action="store_true", help="do not ask")
    restore.add_argument("--directory", type=Path, default=STATE_DIRECTORY, help=argparse.SUPPRESS)
    add("check", _check, "look for damage in the store: exit status 0 means none")
    add("compact", _compact, "give the store's unused space back to the disk")
    rotate = add("rotate-key", _rotate_key, "give the broker, or the bridge, its next key; it restarts")
    rotate.add_argument("--bridge", action="store_true", help="the bridge to other clusters, in place of the broker")
    rotate.add_argument("--yes", action="store_true", help="do not ask")


def _backup(options: argparse.Namespace) -> int:
    made = ask_supervisor(options, "queue.backup", BackedUp, Tend(who=person()), deadline_s=LONG_S)
    if options.file is not None:
        _copy(Path(made.path), options.file)
        made = msgspec.structs.replace(made, path=os.fsencode(options.file).decode(errors="replace"))
    if options.json:
        print_json(made)
    else:
        print(f"The queue as of {time_text(made.at)} is in {harmless(made.path)}, {size_text(made.size)}.")
    return DONE


def _restore(options: argparse.Namespace) -> int:
    what = "What came into the queue since the backup was made is set aside, what was done since then is done again."
    source: Path = options.file
    directory: Path = options.directory
    if not source.is_file():
        raise InvalidInput(f"There is no file {source}.", hint="`alpha-ren queue backup FILE` makes one.")
    if (directory / STORE).exists() and source.samefile(directory / STORE):
        raise InvalidInput(f"{source} is the queue itself.", hint="`alpha-ren queue backup` makes a copy of it.")
    confirm(options, what)
    for suffix in BESIDE:
        log = source.with_name(f"{source.name}{suffix}")
        if log.is_file():
            _copy(log, directory / f"{RESTORE}{suffix}", owner=directory)
        else:
            (directory / f"{RESTORE}{suffix}").unlink(missing_ok=True)
    _copy(source, directory / RESTORE, owner=directory)
    (directory / REFUSED).unlink(missing_ok=True)
    _restart(unit_name(QUEUE))
    if (directory / REFUSED).exists():
        raise NotRestored(f"{source} is not a sound backup of the queue.")
    if options.json:
        print_json(Restored(replaced=str(directory / REPLACED)))
    else:
        print(f"The queue is what {source} holds. The former one is kept as {directory / REPLACED}.")
    return DONE


def _restart(unit: str) -> None:
    command = ["systemctl", "restart", unit]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=RESTART_S)
    except (OSError, subprocess.SubprocessError) as error:
        hint = "The backup is taken up when the broker starts."
        raise Unavailable(f"{unit} could not be restarted: {error}.", hint=hint) from error


def _copy(source: Path, target: Path, owner: Path | None = None) -> None:
    """Whole and on disk, or not at all; only root may read it, or whom `owner` belongs to. A link is followed."""
    try:
        target = target.resolve()
        if target.exists() and not target.is_file():
            raise CopyNotKept(f"{target} is no file.", hint="Name a file that is to be written, or replaced.")
        descriptor, name = tempfile.mkstemp(prefix=f"{target.name[:100]}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as out, source.open("rb") as copied:
                shutil.copyfileobj(copied, out, 2**20)
                if owner is not None:
                    os.fchown(descriptor, owner.stat().st_uid, owner.stat().st_gid)
                out.flush()
                os.fsync(descriptor)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
    except (OSError, RuntimeError) as error:
        raise CopyNotKept(f"{source} could not be copied to {target}: {error}.") from error


def _check(options: argparse.Namespace) -> int:
    problems = ask_supervisor(options, "queue.check", Checked, Tend(who=person()), deadline_s=LONG_S)
    if options.json:
        print_json(problems)
    else:
        print("\n".join(problems.problems) or "The store is sound.")
    return FAILED if problems.problems else DONE


def _compact(options: argparse.Namespace) -> int:
    request = Compact(who=person())
    pages = given = ask_supervisor(options, "queue.compact", Compacted, request).pages
    while given == request.pages:
        given = ask_supervisor(options, "queue.compact", Compacted, request).pages
        pages += given
    if options.json:
        print_json(Compacted(pages=pages))
    else:
        print(f"{pages} unused page{'' if pages == 1 else 's'} given back to the disk.")
    return DONE


def _rotate_key(options: argparse.Namespace) -> int:
    who, instance, known = "broker", "", "its clients come back by themselves"
    if options.bridge:
        who, instance, known = "bridge", BRIDGE, "the other clusters must list it as `next_key` by now"
    confirm(options, f"The {who} restarts with its next key; {known}.")
    asked = Rotate(instance=instance)
    rotated = ask_supervisor(options, "queue.rotate-key", Rotated, asked, deadline_s=120.0)
    if options.json:
        print_json(rotated)
    else:
        print(f"The {who} has its next key, {rotated.steps} steps taken.")
    return DONE

"""Directories and rendered files: written whole or not at all, and only after the daemon's own checker liked them."""

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from appliance.errors import ApplianceError
from appliance.topology import Directory, File

RUN = "/run/alpha-ren"
CHECK_DEADLINE_S = 15.0
MOST_SAID = 2000


class FileRefused(ApplianceError):
    """A daemon's checker refuses a rendered file; the one before it stays."""

    code = "file-refused"
    hint = "The file that was in force stays. The checker's words name the line."


def make_directory(directory: Directory) -> None:
    """Make the directory, and the ones above it, with its mode."""
    path = Path(directory.path)
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(directory.mode)


async def write(file: File) -> None:
    """Put the file in place in one step, after its check; raise FileRefused, then nothing was changed."""
    path = Path(file.path)
    # The name keeps its suffix, which some checkers go by.
    candidate = path.with_name(f".new-{path.name}")
    try:
        await asyncio.to_thread(_put, candidate, file)
        if file.check:
            await _check(file, candidate)
        candidate.rename(path)
    finally:
        with suppress(FileNotFoundError):
            candidate.unlink()


def directories(wanted: Iterable[Directory]) -> Iterator[Directory]:
    """Return the wanted directories that are there; what is not below our own in /run is somebody else's to give a
    mode.
    """
    for directory in wanted:
        path = Path(directory.path)
        if path.is_dir():
            ours = path.is_relative_to(RUN)
            yield Directory(path=directory.path, mode=path.stat().st_mode & 0o7777 if ours else directory.mode)


class Contents:
    """Reads files, and reads again only those that were changed since: every change gives a file a new stamp."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[tuple[int, ...], str]] = {}

    def of(self, path: Path) -> tuple[str, int] | None:
        """Return what is in a file, and its mode; None where there is none."""
        try:
            status = path.stat()
            stamp = (status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)
            if path not in self._kept or self._kept[path][0] != stamp:
                self._kept[path] = (stamp, path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            self._kept.pop(path, None)
            return None
        return self._kept[path][1], status.st_mode & 0o7777

    def files(self, wanted: Iterable[File]) -> Iterator[File]:
        """Return the wanted files that are there, as they are."""
        for file in wanted:
            found = self.of(Path(file.path))
            if found is not None:
                yield File(path=file.path, content=found[0], mode=found[1], check=file.check)

    def forget(self) -> None:
        """Read everything again."""
        self._kept = {}


def _put(candidate: Path, file: File) -> None:
    with suppress(FileNotFoundError):
        candidate.unlink()
    descriptor = os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(file.content)
    candidate.chmod(file.mode)


async def _check(file: File, candidate: Path) -> None:
    command = [word.replace("{path}", str(candidate)) for word in file.check]
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        raise FileRefused(f"{file.path} cannot be checked: {error}.") from error
    try:
        async with asyncio.timeout(CHECK_DEADLINE_S):
            said, _ = await process.communicate()
    except TimeoutError as error:
        raise FileRefused(f"{command[0]} did not judge {file.path} within {CHECK_DEADLINE_S:.0f} seconds.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        text = said.decode(errors="replace").strip()[-MOST_SAID:]
        raise FileRefused(f"{command[0]} refuses {file.path}: {text or f'exit status {process.returncode}'}.")

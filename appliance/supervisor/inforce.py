"""The configuration that is in force: the box's own file, else the last one that was good, else the defaults."""

import hashlib
import os
from pathlib import Path

import msgspec

from appliance.config import Config, InvalidConfig, load, parse
from appliance.durable import place, sync
from appliance.errors import Problem


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration, where it came from (`file`, `last-good`, `default`), and why it is not the file's where it
    is not.
    """

    config: Config
    source: str
    problem: Problem | None = None


class ConfigFile:
    """`config.toml` in the state directory and, beside it, the copy of the last one that was good, and the one before
    a change that is on trial.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "config.toml"
        self._last_good = directory / "config.last-good.toml"
        self._before = directory / "config.before.toml"

    def read(self, on_trial: str = "") -> InForce:
        """Return what is in force now; a file that does not validate changes nothing, and the one of the digest
        `on_trial` is not remembered as good. Blocks on the disk.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return InForce(config=Config(), source="default")
        except (OSError, UnicodeDecodeError) as error:
            return self._fall_back(InvalidConfig(f"The configuration at {self._path} cannot be read: {error}."))
        try:
            config = parse(text)
        except InvalidConfig as error:
            return self._fall_back(error)
        if digest(text.encode()) != on_trial:
            self._keep(text)
        return InForce(config=config, source="file")

    def write(self, text: str) -> str:
        """Put a configuration that validates in place and return its digest. Blocks on the disk."""
        parse(text)
        place(self._path, text.encode())
        return digest(text.encode())

    def digest(self) -> str:
        """Return the digest of what is in the file, be it valid or not; empty without one. Blocks on the disk."""
        return digest(self._path.read_bytes()) if self._path.exists() else ""

    def set_aside(self) -> bool:
        """Let the file be found again once another is in its place; return whether there is one. Blocks on the disk."""
        self._before.unlink(missing_ok=True)
        if not self._path.exists():
            return False
        os.link(self._path, self._before)
        sync(self._path.parent)
        return True

    def put_back(self, *, there_was_one: bool) -> None:
        """Undo what was written since `set_aside`; takes no room on the disk, which may be full. Blocks on it."""
        if there_was_one:
            self._before.rename(self._path)
        else:
            self._path.unlink(missing_ok=True)
        sync(self._path.parent)

    def _keep(self, text: str) -> None:
        if not self._last_good.exists() or self._last_good.read_text(encoding="utf-8") != text:
            place(self._last_good, text.encode())

    def _fall_back(self, error: InvalidConfig) -> InForce:
        try:
            return InForce(config=load(self._last_good), source="last-good", problem=error.problem)
        except InvalidConfig:
            return InForce(config=Config(), source="default", problem=error.problem)


def digest(content: bytes) -> str:
    """Return the SHA-256 of a configuration."""
    return hashlib.sha256(content).hexdigest()

"""The configuration that is in force: the box's own file, else the last one that was good, else the defaults."""

import hashlib
import os
from pathlib import Path

import msgspec

from appliance.config import Config, InvalidConfig, load, parse
from appliance.errors import Problem


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration, where it came from (`file`, `last-good`, `default`), and why it is not the file's where it
    is not.
    """

    config: Config
    source: str
    problem: Problem | None = None


class ConfigFile:
    """`config.toml` in the state directory and, beside it, the copy of the last one that was good."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "config.toml"
        self._last_good = directory / "config.last-good.toml"

    def read(self) -> InForce:
        """Return what is in force now; a file that does not validate changes nothing. Blocks on the disk."""
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
        self._keep(text)
        return InForce(config=config, source="file")

    def write(self, text: str) -> str:
        """Put a configuration that validates in place and return the SHA-256 of its text. Blocks on the disk."""
        parse(text)
        _replace(self._path, text)
        return hashlib.sha256(text.encode()).hexdigest()

    def _keep(self, text: str) -> None:
        if not self._last_good.exists() or self._last_good.read_text(encoding="utf-8") != text:
            _replace(self._last_good, text)

    def _fall_back(self, error: InvalidConfig) -> InForce:
        try:
            return InForce(config=load(self._last_good), source="last-good", problem=error.problem)
        except InvalidConfig:
            return InForce(config=Config(), source="default", problem=error.problem)


def _replace(path: Path, text: str) -> None:
    """Whole and on disk, or not at all; for root only, since it may name partners and addresses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    candidate = path.with_name(f".{path.name}.new")
    candidate.unlink(missing_ok=True)
    descriptor = os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    candidate.rename(path)

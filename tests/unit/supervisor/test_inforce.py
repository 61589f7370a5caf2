"""Which configuration is in force."""

from pathlib import Path

import pytest

from appliance.config import Config, InvalidConfig
from appliance.supervisor.inforce import ConfigFile


def test_without_a_file_the_defaults_are_in_force(tmp_path: Path) -> None:
    found = ConfigFile(tmp_path).read()
    assert (found.config, found.source, found.problem) == (Config(), "default", None)


def test_a_written_configuration_is_in_force_and_only_root_may_read_it(tmp_path: Path) -> None:
    store = ConfigFile(tmp_path)
    store.write('[machine]\nname = "one"\n')
    assert store.read().config.machine.name == "one"
    assert store.read().source == "file"
    assert (tmp_path / "config.toml").stat().st_mode & 0o777 == 0o600


def test_one_that_does_not_validate_leaves_the_last_good_one_in_force_and_is_said(tmp_path: Path) -> None:
    store = ConfigFile(tmp_path)
    store.write('[machine]\nname = "one"\n')
    store.read()
    (tmp_path / "config.toml").write_text('[machine]\nnmae = "two"\n')
    found = store.read()
    assert found.config.machine.name == "one"
    assert found.source == "last-good"
    assert found.problem is not None
    assert "nmae" in found.problem.message


def test_a_bad_one_without_a_good_one_before_is_the_defaults_and_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    found = ConfigFile(tmp_path).read()
    assert found.source == "default"
    assert found.problem is not None
    assert found.problem.code == "invalid-config"


def test_a_bad_one_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig):
        ConfigFile(tmp_path).write("version = 99\n")
    assert list(tmp_path.iterdir()) == []

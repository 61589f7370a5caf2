"""The linters, as tests: types are strict, and every file reads the way the house writes."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = ("appliance", "firstboot", "image/cutting", "scripts", "tests")


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "--no-cache", "."), ("mypy", "--cache-dir=build/cache/mypy", *CODE)],
    ids=lambda command: command[0],
)
def test_the_linter_has_nothing_to_say(command: tuple[str, ...]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]

"""A failed lab test says where its machines' journals are, and how they end."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.labs import launch

FAILS_INSIDE = """
from scripts.labs.session import Lab
from tests.lab import plans

def test_that_fails():
    with Lab(plans.one_box()) as lab:
        lab.machine("box").run(["systemd-cat", "echo", "the last words"])
        assert False
"""

FAILS_WITH_A_FIXTURE = """
import pytest
from scripts.labs.session import Lab
from tests.lab import plans

@pytest.fixture(scope="module")
def lab():
    with Lab(plans.one_box()) as running:
        yield running

def test_that_fails(lab):
    lab.machine("box").run(["systemd-cat", "echo", "the last words"])
    assert False
"""


@pytest.mark.parametrize("test", [FAILS_INSIDE, FAILS_WITH_A_FIXTURE])
def test_the_journal_of_a_failed_test_is_saved(tmp_path: Path, test: str) -> None:
    file = tmp_path / "test_fails.py"
    file.write_text(test, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.lab.conftest", "--rootdir", str(launch.WORKING_COPY), str(file)],
        capture_output=True,
        text=True,
        cwd=launch.WORKING_COPY,
        timeout=120,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    saved = re.search(r"(/\S+box\.journal\.log)", run.stdout)
    assert saved is not None, run.stdout
    assert "the last words" in Path(saved.group(1)).read_text(encoding="utf-8")

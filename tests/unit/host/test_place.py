"""The throwaway machines of these tests: what is left of one whose run was killed is found."""

import os
import subprocess
from pathlib import Path

import pytest

from appliance.host.netns import Namespaces
from tests.unit.host.place import left_behind

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may")


def test_what_runs_that_have_ended_have_pinned_is_found_and_no_other(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    locks = {"pytest-1": ended.pid, "pytest-2": os.getpid(), "garbage-3": None, "pytest-4": None, "mine": None}
    for name, pid in locks.items():
        (tmp_path / name).mkdir()
        if pid is not None:
            (tmp_path / name / ".lock").write_text(str(pid))
        namespaces = Namespaces(tmp_path / name / "outer")
        namespaces.make("host")
        namespaces.close()
    try:
        assert {path.parts[-3] for path in left_behind(tmp_path)} == {"pytest-1", "garbage-3", "pytest-4"}
    finally:
        for name in locks:
            subprocess.run(["umount", str(tmp_path / name / "outer" / "host")], check=True, timeout=30)
    assert left_behind(tmp_path) == []

"""No half-written output is ever taken for a finished one."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.building import publish


def made(folder: Path, text: str) -> Path:
    """A finished file beside its place."""
    file = folder / "made"
    file.write_text(text)
    return file


def test_a_published_output_is_up_to_date_for_its_inputs_only(tmp_path: Path) -> None:
    output = tmp_path / "disk.raw"
    publish.publish(made(tmp_path, "new"), output, "digest-1")
    assert publish.up_to_date(output, "digest-1")
    assert not publish.up_to_date(output, "digest-2")


def test_an_output_that_something_else_left_there_is_not_taken_for_finished(tmp_path: Path) -> None:
    output = tmp_path / "disk.raw"
    output.write_text("half")
    assert not publish.up_to_date(output, "digest-1")


def test_a_stamp_without_its_output_counts_for_nothing(tmp_path: Path) -> None:
    output = tmp_path / "disk.raw"
    publish.publish(made(tmp_path, "new"), output, "digest-1")
    output.unlink()
    assert not publish.up_to_date(output, "digest-1")


KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from scripts.building import publish
folder = Path(sys.argv[1])
def die(*arguments, **names):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(publish if sys.argv[2] in vars(publish) else Path, sys.argv[2], die)
(folder / "made").write_text("new")
publish.publish(folder / "made", folder / "disk.raw", "digest-2")
"""


@pytest.mark.parametrize("where", ["sync", "rename", "_write_whole"])
def test_a_build_killed_while_it_publishes_leaves_nothing_that_looks_finished(tmp_path: Path, where: str) -> None:
    output = tmp_path / "disk.raw"
    publish.publish(made(tmp_path, "old"), output, "digest-1")
    root = Path(publish.__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_BETWEEN, str(tmp_path), where], cwd=root, check=False, timeout=60
    )
    assert ended.returncode == -9
    assert not publish.up_to_date(output, "digest-2")
    assert not publish.up_to_date(output, "digest-1") or output.read_text() == "old"


def test_the_tree_in_use_stays_until_the_build_after_the_next(tmp_path: Path) -> None:
    link = tmp_path / "qemu"
    places = []
    for number in range(3):
        fresh = tmp_path / "made"
        fresh.mkdir()
        (fresh / "number").write_text(str(number))
        places.append(publish.publish_directory(fresh, link, f"digest-{number}"))
        assert (link / "number").read_text() == str(number)
    assert not places[0].exists()
    assert (places[1] / "number").read_text() == "1"
    assert publish.up_to_date(link, "digest-2")

"""A rebuild happens exactly when an input changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.building import inputs, paths


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree of inputs."""
    (tmp_path / "image/a").mkdir(parents=True)
    (tmp_path / "image/a/one").write_text("1")
    (tmp_path / "image/a/two").write_text("2")
    (tmp_path / "image/link").symlink_to("a/one")
    return tmp_path


def move(tree: Path) -> None:
    (tree / "image/a/one").rename(tree / "image/a/three")


def relink(tree: Path) -> None:
    (tree / "image/link").unlink()
    (tree / "image/link").symlink_to("a/two")


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "image/a/one").write_text("x"),
        lambda tree: (tree / "image/a/new").write_text(""),
        lambda tree: (tree / "image/a/two").unlink(),
        lambda tree: (tree / "image/a/two").chmod(0o755),
        move,
        relink,
    ],
    ids=["content", "new file", "removed file", "mode", "name", "link"],
)
def test_any_change_changes_the_digest(tree: Path, change: Callable[[Path], object]) -> None:
    before = inputs.digest(["image"], root=tree)
    change(tree)
    assert inputs.digest(["image"], root=tree) != before


def test_the_digest_does_not_depend_on_time_or_on_what_python_caches(tree: Path) -> None:
    before = inputs.digest(["image"], root=tree)
    (tree / "image/a/one").write_text("1")
    (tree / "image/__pycache__").mkdir()
    (tree / "image/__pycache__/one.pyc").write_text("")
    assert inputs.digest(["image"], root=tree) == before


def test_content_that_moves_from_one_file_to_the_next_is_a_change(tree: Path) -> None:
    before = inputs.digest(["image/a/one", "image/a/two"], root=tree)
    (tree / "image/a/one").write_text("12")
    (tree / "image/a/two").write_text("")
    assert inputs.digest(["image/a/one", "image/a/two"], root=tree) != before


def test_lock_files_name_no_host() -> None:
    for lock in (paths.REPOSITORY / "requirements").glob("*.lock"):
        text = lock.read_text()
        assert "://" not in text
        assert "--index-url" not in text
        assert text.count("==") <= text.count("--hash=sha256:")

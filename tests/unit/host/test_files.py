"""Rendered files: whole or not at all."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from appliance.host.files import Contents, FileRefused, directories, make_directory, write
from appliance.topology import Directory, File


def put(file: File) -> None:
    """Write a file."""
    asyncio.run(write(file))


def test_a_file_is_written_with_its_mode_and_found_again(tmp_path: Path) -> None:
    file = File(path=str(tmp_path / "a.conf"), content="ä\n", mode=0o640)
    put(file)
    assert list(Contents().files([file])) == [file]
    assert [path.name for path in tmp_path.iterdir()] == ["a.conf"]


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    assert list(Contents().files([File(path=str(tmp_path / "a"), content="")])) == []


def test_a_file_is_read_again_once_it_was_changed(tmp_path: Path) -> None:
    contents = Contents()
    file = File(path=str(tmp_path / "a"), content="one")
    for wanted in (file, msgspec.structs.replace(file, content="two"), msgspec.structs.replace(file, mode=0o600)):
        put(wanted)
        assert list(contents.files([wanted])) == [wanted]
    (tmp_path / "a").unlink()
    assert list(contents.files([file])) == []


def test_the_checker_sees_the_candidate_and_its_approval_puts_it_in_place(tmp_path: Path) -> None:
    put(File(path=str(tmp_path / "a"), content="good\n", check=("grep", "-q", "good", "{path}")))
    assert (tmp_path / "a").read_text() == "good\n"


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (("sh", "-c", "echo line 7 is wrong; exit 1", "{path}"), "line 7 is wrong"),
        (("/nonexistent/checker", "{path}"), "cannot be checked"),
    ],
)
def test_a_refused_file_leaves_the_old_one_and_no_trace(tmp_path: Path, check: tuple[str, ...], said: str) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileRefused, match=said):
        put(File(path=str(tmp_path / "a"), content="new", check=check))
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_replaces_a_link_instead_of_following_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    put(File(path=str(tmp_path / "a"), content="new"))
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert not (tmp_path / "a").is_symlink()


def test_a_directory_is_made_with_those_above_it(tmp_path: Path) -> None:
    wanted = Directory(path=str(tmp_path / "a" / "b"), mode=0o1777)
    make_directory(wanted)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o7777 == 0o1777
    assert list(directories([wanted])) == [wanted]

"""A file is as it was or as it should be, and others stay as they are."""

from pathlib import Path

import pytest

from appliance.durable import place, sync, write


def test_a_file_is_replaced_whole_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "note"
    for content in (b"first", b"second"):
        place(path, content)
        assert (path.read_bytes(), path.stat().st_mode & 0o777) == (content, 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_earlier_writer_left_when_it_was_cut_off_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / ".note.new").write_bytes(b"hal")
    place(tmp_path / "note", b"whole", mode=0o640)
    assert (tmp_path / "note").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_where_it_cannot_be_put_in_place_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "note").mkdir()
    with pytest.raises(IsADirectoryError):
        place(tmp_path / "note", b"text")
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_a_new_file_takes_the_place_of_none(tmp_path: Path) -> None:
    write(tmp_path / "key", b"one")
    with pytest.raises(FileExistsError):
        write(tmp_path / "key", b"two")
    assert (tmp_path / "key").read_bytes() == b"one"


def test_what_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "nothing")

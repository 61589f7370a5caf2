"""The archives that the kernel unpacks: read by cpio, which knows nothing of how they were written."""

import shutil
import subprocess
from pathlib import Path

import pytest

from image.cutting import archive

FILES = {
    "init": archive.program(b"#!/bin/sh\n"),
    "etc/odd": archive.data(b"abc"),
    "etc/empty": archive.data(b""),
    "bin": archive.link("usr/bin"),
    "dev": archive.File(archive.FOLDER),
}


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not there")
def test_cpio_finds_every_file_with_its_mode_and_content(tmp_path: Path) -> None:
    command = ["cpio", "--extract", "--quiet", "--make-directories"]
    subprocess.run(command, input=archive.write(FILES), cwd=tmp_path, check=True, timeout=30)
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "etc/odd").read_bytes() == b"abc"
    assert (tmp_path / "etc/empty").read_bytes() == b""
    assert (tmp_path / "bin").readlink() == Path("usr/bin")
    assert (tmp_path / "dev").is_dir()


def test_a_folder_comes_before_what_is_in_it() -> None:
    content = archive.write({"a/b/c": archive.data(b"x")})
    assert content.index(b"a\0") < content.index(b"a/b\0") < content.index(b"a/b/c\0")


def test_the_order_in_which_files_are_named_makes_no_difference() -> None:
    assert archive.write(FILES) == archive.write(dict(reversed(FILES.items())))


def test_headers_and_contents_begin_at_multiples_of_four() -> None:
    content = archive.write(FILES)
    position = 0
    while not content[position + 110 :].startswith(archive.TRAILER.encode()):
        assert content[position : position + 6] == b"070701"
        size, length = (int(content[position + at : position + at + 8], 16) for at in (54, 94))
        position += 110 + length
        position += -position % 4 + size
        position += -position % 4
    assert len(content) % 4 == 0

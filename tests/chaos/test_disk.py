"""The disk model: what a power cut takes and what it leaves."""

import errno

import pytest

from tests.chaos.disk import BLOCK, Disk


def written(content: bytes = b"") -> tuple[Disk, int]:
    """A disk with one file, name and content on record."""
    disk = Disk()
    number = disk.create("a", 0o600)
    disk.write(number, 0, content)
    disk.sync(number)
    disk.sync_names()
    return disk, number


def content(disk: Disk, name: str = "a") -> bytes:
    return bytes(disk.files[disk.names[name]].content)


def test_a_cut_takes_what_was_not_synced_and_leaves_the_rest() -> None:
    disk, number = written(b"old")
    disk.write(number, 3, b" and new")
    assert content(disk) == b"old and new"
    disk.cut()
    assert content(disk) == b"old"


def test_a_sync_of_one_file_says_nothing_about_another() -> None:
    disk, number = written(b"a")
    other = disk.create("b", 0o600)
    disk.sync_names()
    disk.write(other, 0, b"b")
    disk.write(number, 0, b"A")
    disk.sync(number)
    disk.cut()
    assert (content(disk), content(disk, "b")) == (b"A", b"")


@pytest.mark.parametrize("size", [0, 10, BLOCK, BLOCK + 7, 4 * BLOCK])
def test_a_truncation_counts_once_it_is_synced(size: int) -> None:
    before = bytes(range(256)) * (3 * BLOCK // 256)
    disk, number = written(before)
    disk.files[number].truncate(size)
    shorter = content(disk)
    assert shorter == (before + bytes(BLOCK))[:size]
    disk.cut()
    assert content(disk) == before
    number = disk.names["a"]
    disk.files[number].truncate(size)
    disk.sync(number)
    disk.cut()
    assert content(disk) == shorter


def test_what_follows_a_truncation_in_the_same_sync_is_what_was_written_last() -> None:
    disk, number = written(b"x" * 3 * BLOCK)
    disk.files[number].truncate(5)
    disk.write(number, 2 * BLOCK, b"tail")
    disk.sync(number)
    disk.cut()
    assert content(disk) == b"x" * 5 + bytes(2 * BLOCK - 5) + b"tail"


def test_a_name_counts_once_the_directory_is_synced() -> None:
    disk, number = written(b"kept")
    disk.rename("a", "b")
    disk.sync(disk.create("c", 0o600))
    disk.cut()
    assert (set(disk.names), content(disk)) == ({"a"}, b"kept")
    disk.rename("a", "b")
    disk.sync_names()
    disk.cut()
    assert (set(disk.names), content(disk, "b")) == ({"b"}, b"kept")
    disk.unlink("b")
    disk.cut()
    assert content(disk, "b") == b"kept"
    disk.unlink("b")
    disk.sync_names()
    disk.cut()
    assert (disk.names, disk.files) == ({}, {})
    assert number == 2


def test_a_cut_with_a_seed_keeps_some_blocks_and_never_touches_synced_ones() -> None:
    disk, number = written(b"s" * BLOCK)
    disk.write(number, BLOCK, b"".join(bytes([n]) * BLOCK for n in range(1, 65)))
    disk.cut("7")
    kept = content(disk)
    assert kept[:BLOCK] == b"s" * BLOCK
    blocks = [kept[start : start + BLOCK] for start in range(BLOCK, len(kept), BLOCK)]
    assert all(block in (bytes(BLOCK), bytes([n]) * BLOCK) for n, block in enumerate(blocks, start=1))
    assert 0 < sum(block != bytes(BLOCK) for block in blocks) < 64


def test_after_a_failed_sync_the_data_reads_well_and_is_nowhere() -> None:
    disk, number = written(b"old")
    disk.write(number, 0, b"new")
    disk.fault = "sync"
    with pytest.raises(OSError, match="fault") as failure:
        disk.sync(number)
    assert failure.value.errno == errno.EIO
    disk.fault = ""
    disk.sync(number)
    assert content(disk) == b"new"
    disk.cut()
    assert content(disk) == b"old"


@pytest.mark.parametrize(("fault", "number"), [("write", errno.EIO), ("full", errno.ENOSPC)])
def test_a_fault_leaves_the_content_alone(fault: str, number: int) -> None:
    disk, file = written(b"old")
    disk.fault = fault
    with pytest.raises(OSError, match="fault") as failure:
        disk.write(file, 3, b"new")
    assert (failure.value.errno, content(disk), disk.refused) == (number, b"old", 1)


def test_a_full_disk_can_be_written_where_it_already_is() -> None:
    disk, file = written(b"old")
    disk.fault = "full"
    disk.write(file, 0, b"new")
    assert content(disk) == b"new"

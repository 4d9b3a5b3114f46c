"""What the file system in memory may lose when its machine does: all that was not synced, and each part by itself."""

from __future__ import annotations

import pytest

from frieda.testing.filesystem import PAGE_SIZE_BYTES, MemoryFileSystem

SEEDS = [None, *range(40)]


@pytest.fixture
def filesystem():
    made = MemoryFileSystem()
    made.make_directory("/data")
    for name in ("a", "b"):
        file = made.open(f"/data/{name}", create=True)
        file.pwrite(b"x" * 3 * PAGE_SIZE_BYTES, 0)
        file.sync()
        file.release()
    made.sync_directory("/data")
    return made


def outcomes(filesystem, look):
    return {look(filesystem.after_power_loss(seed)) for seed in SEEDS}


def test_each_removed_name_is_gone_or_not_until_its_folder_is_synced(filesystem):
    filesystem.unlink("/data/a")
    filesystem.unlink("/data/b")

    def names(left):
        return tuple(left.list_directory("/data"))

    assert outcomes(filesystem, names) == {("a", "b"), ("a",), ("b",), ()}
    assert names(filesystem.after_power_loss()) == ("a", "b")
    filesystem.sync_directory("/data")
    assert outcomes(filesystem, names) == {()}


def test_a_name_that_is_made_anew_has_the_old_file_the_new_one_or_none(filesystem):
    filesystem.unlink("/data/a")
    file = filesystem.open("/data/a", create=True)
    file.pwrite(b"new", 0)
    file.sync()
    file.release()

    def content(left):
        return bytes(left.peek("/data/a")[:3]) if "/data/a" in left.paths() else None

    assert outcomes(filesystem, content) == {b"xxx", b"new", None}


def test_a_cut_of_a_file_is_there_or_not_until_it_is_synced(filesystem):
    file = filesystem.open("/data/a")
    file.truncate(10)

    def size(left):
        return left.size("/data/a")

    assert outcomes(filesystem, size) == {10, 3 * PAGE_SIZE_BYTES}
    assert size(filesystem.after_power_loss()) == 3 * PAGE_SIZE_BYTES
    file.sync()
    assert outcomes(filesystem, size) == {10}
    file.release()


def test_what_is_written_where_a_file_was_cut_may_lie_before_what_was_cut(filesystem):
    file = filesystem.open("/data/a")
    file.truncate(0)
    file.pwrite(b"y" * PAGE_SIZE_BYTES, 0)
    file.release()

    def pages(left):
        data = left.peek("/data/a")
        return bytes(data[::PAGE_SIZE_BYTES])

    assert outcomes(filesystem, pages) >= {b"xxx", b"yxx", b"y", b""}


def test_a_kill_keeps_what_a_power_cut_may_take_and_may_take_it_later(filesystem):
    filesystem.unlink("/data/a")
    killed = filesystem.after_kill()
    assert killed.list_directory("/data") == ["b"]
    assert outcomes(killed, lambda left: tuple(left.list_directory("/data"))) == {
        ("a", "b"),
        ("b",),
    }

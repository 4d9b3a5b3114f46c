"""The data folder: one broker, one format, and a clear sentence for everything else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid

import pytest

from frieda.config import BrokerConfig, TopicConfig
from frieda.errors import StorageError
from frieda.host import host_identity
from frieda.storage.filesystem import RealFileSystem
from frieda.storage.folder import DataFolder
from frieda.testing.filesystem import MemoryFileSystem

TOPIC_ID = uuid.UUID(int=5).bytes


def open_topic(folder, clock, topic_id=TOPIC_ID, partition=0):
    return folder.open_log("t", partition, topic_id, TopicConfig(), clock, BrokerConfig())


def test_a_second_broker_is_told_who_has_the_folder(tmp_path):
    folder = DataFolder.open(RealFileSystem(), str(tmp_path / "data"), 0)
    program = (
        "from frieda.storage.folder import DataFolder\n"
        "from frieda.storage.filesystem import RealFileSystem\n"
        "from frieda.errors import StorageError\n"
        "import sys\n"
        "try:\n"
        "    DataFolder.open(RealFileSystem(), sys.argv[1], 0)\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, folder.path], capture_output=True, text=True, check=True
    )
    assert f"{folder.path} is in use by another broker (process {os.getpid()})" in ran.stdout
    folder.close(clean=True)
    DataFolder.open(RealFileSystem(), folder.path, 0).close(clean=True)


def test_the_lock_goes_with_a_process_that_is_killed(tmp_path):
    program = (
        "from frieda.storage.folder import DataFolder\n"
        "from frieda.storage.filesystem import RealFileSystem\n"
        "import os, sys, signal\n"
        "DataFolder.open(RealFileSystem(), sys.argv[1], 0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    folder = DataFolder.open(RealFileSystem(), str(tmp_path), 0)
    assert not folder.was_clean
    folder.close(clean=True)


def test_the_clean_marker_is_there_only_after_a_clean_close(filesystem):
    folder = DataFolder.open(filesystem, "/data", 0)
    assert not folder.was_clean
    folder.close(clean=True)
    folder = DataFolder.open(filesystem, "/data", 0)
    assert folder.was_clean
    killed = filesystem.after_kill()
    assert not DataFolder.open(killed, "/data", 0).was_clean
    folder.close(clean=False)
    folder.close(clean=True)
    assert not DataFolder.open(filesystem, "/data", 0).was_clean


def test_the_clean_marker_is_gone_after_a_power_cut_too(filesystem, clock, append):
    folder = DataFolder.open(filesystem, "/data", 0)
    open_topic(folder, clock).close()
    folder.close(clean=True)
    DataFolder.open(filesystem, "/data", 0)
    assert not DataFolder.open(filesystem.after_power_loss(), "/data", 0).was_clean


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in ("file", "file/below"):
        with pytest.raises(StorageError, match="is a file"):
            DataFolder.open(RealFileSystem(), str(tmp_path / path), 0)


@pytest.mark.parametrize("number", [13, 30])
def test_an_unreadable_or_read_only_folder_is_named(number):
    filesystem = MemoryFileSystem()
    filesystem.fail("open", number)
    with pytest.raises(StorageError, match="must be able to read and write it"):
        DataFolder.open(filesystem, "/data", 0)


@pytest.mark.parametrize(
    ("meta", "sentence"),
    [
        (b'{"format": 9, "broker_id": 0, "folder_id": "x"}', "format version 9; this broker"),
        (b'{"format": 1, "broker_id": 3, "folder_id": "x"}', "belongs to broker 3, not to 0"),
        (b"{", "damaged"),
        (b"[]", "damaged"),
    ],
)
def test_a_folder_of_another_kind_is_refused_and_stays_unlocked(filesystem, meta, sentence):
    DataFolder.open(filesystem, "/data", 0).close(clean=True)
    filesystem.peek("/data/meta.json")[:] = meta
    for _ in range(2):
        with pytest.raises(StorageError, match=sentence):
            DataFolder.open(filesystem, "/data", 0)
    assert filesystem.locks == set()


def test_logs_are_listed_deleted_and_tied_to_their_topics_id(filesystem, clock, append):
    folder = DataFolder.open(filesystem, "/data", 0)
    logs = [open_topic(folder, clock, partition=index) for index in (0, 1, 10)]
    assert folder.partitions() == [("t", 0), ("t", 1), ("t", 10)]
    append(logs[1], b"x")
    logs[1].delete()
    assert folder.partitions() == [("t", 0), ("t", 10)]
    assert not [path for path in filesystem.paths() if "t-1/" in path or ".deleted" in path]
    with pytest.raises(StorageError, match="was deleted"):
        append(logs[1], b"x")
    logs[0].close()
    with pytest.raises(StorageError, match="belongs to topic id"):
        open_topic(folder, clock, topic_id=uuid.UUID(int=6).bytes)


def test_leftovers_of_deletions_are_removed_and_nothing_else(filesystem, clock):
    folder = DataFolder.open(filesystem, "/data", 0)
    open_topic(folder, clock).close()
    open_topic(folder, clock, topic_id=uuid.UUID(int=9).bytes, partition=1).close()
    filesystem.make_directory("/data/old-0.abc.deleted")
    filesystem.open("/data/old-0.abc.deleted/x.log", create=True).release()
    filesystem.make_directory("/data/not ours")
    removed = folder.remove_leftovers({uuid.UUID(int=9).bytes})
    assert sorted(removed) == ["old-0.abc.deleted", "t-1"]
    assert folder.partitions() == [("t", 0)]
    assert "not ours" in filesystem.list_directory("/data")


def test_a_log_on_a_real_disk_keeps_what_it_was_given(tmp_path, clock, append, read_all):
    folder = DataFolder.open(RealFileSystem(), str(tmp_path), 0)
    log = open_topic(folder, clock)
    log.config = TopicConfig(segment_bytes=4096)
    for number in range(100):
        append(log, b"%d" % number * 60)
    everything = read_all(log)
    assert len(everything) == 100
    job = log.begin_sync()
    job.run()
    assert job.finish() is None
    assert log.close()
    folder.close(clean=True)
    folder = DataFolder.open(RealFileSystem(), str(tmp_path), 0)
    log = open_topic(folder, clock)
    assert log.scanned_segments == 0
    assert read_all(log) == everything
    plan = log.plan_read(50, 1 << 20)
    view = memoryview(bytearray(plan.size_bytes))
    with pytest.raises(BlockingIOError):  # the index of that segment is not loaded yet
        plan.read_into(view, wait=False)
    assert plan.read_into(view) > 0
    plan = log.plan_read(50, 1 << 20)
    assert plan.read_into(memoryview(bytearray(plan.size_bytes)), wait=False) > 0
    log.delete()
    assert folder.partitions() == []
    folder.close(clean=True)


# --- whether the machine went down ---------------------------------------------------------------------------


def opened_under(filesystem, boot_id):
    return DataFolder.open(filesystem, "/data", 0, boot_id=boot_id)


def test_a_process_that_is_killed_is_no_machine_that_went_down(filesystem, clock, append):
    folder = opened_under(filesystem, "first")
    assert folder.is_new
    append(open_topic(folder, clock), b"x")
    again = opened_under(filesystem.after_kill(), "first")
    assert not again.machine_went_down
    assert not again.is_new


def test_a_machine_that_went_down_while_logs_were_in_use_is_told_of_until_they_have_caught_up(
    filesystem, clock, append
):
    append(open_topic(opened_under(filesystem, "first"), clock), b"x")
    filesystem = filesystem.after_power_loss()
    for boot_id, clean in (("second", False), ("second", True), ("third", True), ("third", False)):
        filesystem = filesystem.after_kill()
        folder = opened_under(filesystem, boot_id)
        assert folder.machine_went_down
        if clean:
            folder.close(clean=True)
    filesystem = filesystem.after_kill()
    folder = opened_under(filesystem, "third")
    folder.caught_up()
    assert not folder.machine_went_down
    assert not opened_under(filesystem.after_kill(), "third").machine_went_down
    assert opened_under(filesystem.after_power_loss(), "fourth").machine_went_down


def test_a_machine_that_goes_down_after_a_clean_close_takes_nothing(filesystem, clock, append):
    folder = opened_under(filesystem, "first")
    log = open_topic(folder, clock)
    append(log, b"x")
    assert log.close()
    folder.close(clean=True)
    folder = opened_under(filesystem.after_power_loss(), "second")
    assert folder.was_clean
    assert not folder.machine_went_down


def test_where_the_machine_has_no_boot_id_every_unclean_stop_counts(filesystem, clock):
    open_topic(opened_under(filesystem, ""), clock)
    assert opened_under(filesystem.after_kill(), "").machine_went_down


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"boot_id": "first"}'])
def test_a_boot_that_was_not_noted_counts_as_another(filesystem, clock, content):
    open_topic(opened_under(filesystem, "first"), clock)
    if content is None:
        filesystem.unlink("/data/.last-boot")
    else:
        filesystem.peek("/data/.last-boot")[:] = content
    assert opened_under(filesystem.after_kill(), "first").machine_went_down


@pytest.mark.parametrize("unclean_before", [False, True])
def test_a_power_cut_at_any_step_of_an_opening_hides_nothing(
    filesystem, clock, append, moments, unclean_before
):
    folder = opened_under(filesystem, "first")
    log = open_topic(folder, clock)
    append(log, b"x")
    log.close()
    if not unclean_before:
        folder.close(clean=True)
    disk = filesystem.after_kill()
    for left in moments(disk, lambda: opened_under(disk, "second")):
        for seed in (None, 1, 2, 3):
            later = opened_under(left.after_power_loss(seed), "third")
            assert later.machine_went_down or later.was_clean
            assert later.machine_went_down or not unclean_before


def test_this_machine_says_that_it_did_not_go_down_in_between(tmp_path, clock):
    open_topic(DataFolder.open(RealFileSystem(), str(tmp_path), 0), clock)
    program = (
        "from frieda.storage.folder import DataFolder\n"
        "from frieda.storage.filesystem import RealFileSystem\n"
        "import sys\n"
        "print(DataFolder.open(RealFileSystem(), sys.argv[1], 0).machine_went_down)\n"
    )
    copy = tmp_path.parent / (tmp_path.name + "-as-killed")
    shutil.copytree(tmp_path, copy)
    ran = subprocess.run(
        [sys.executable, "-c", program, str(copy)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == str(host_identity() == "")

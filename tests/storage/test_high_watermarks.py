"""The saved high watermarks: Kafka's file, what a replica makes of it at its start, and what of one that is damaged."""

from __future__ import annotations

import errno
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.config import BrokerConfig, TopicConfig
from frieda.errors import StorageError
from frieda.model import TopicPartition
from frieda.storage.folder import DataFolder
from frieda.storage.high_watermarks import (
    HighWatermarks,
    HighWatermarksDamagedError,
    decode,
    encode,
)

PATH = "/data/replication-offset-checkpoint"
HERE = TopicPartition("t", 0)


def opened(filesystem, clock, *, replicated=True):
    folder = DataFolder.open(filesystem, "/data", 0, boot_id="this boot")
    log = folder.open_log(
        "t", 0, uuid.UUID(int=5).bytes, TopicConfig(), clock, BrokerConfig(), replicated=replicated
    )
    return folder, log


def test_the_file_is_kafkas():
    offsets = {TopicPartition("some.topic", 3): 17, TopicPartition("t-1", 0): 0}
    assert encode(offsets) == b"0\n2\nsome.topic 3 17\nt-1 0 0\n"
    assert decode(encode(offsets)) == offsets
    assert decode(encode({})) == {}


@given(
    st.dictionaries(
        st.tuples(st.from_regex(r"[a-z._-]{3,12}", fullmatch=True), st.integers(0, 10_000)).map(
            lambda pair: TopicPartition(*pair)
        ),
        st.integers(0, 2**62),
    )
)
def test_every_file_is_read_as_it_was_written_and_none_that_is_cut_short(offsets):
    content = encode(offsets)
    assert decode(content) == offsets
    for size in range(len(content)):
        with pytest.raises(HighWatermarksDamagedError):
            decode(content[:size])


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_called_damaged(content):
    try:
        assert all(offset >= 0 for offset in decode(content).values())
    except HighWatermarksDamagedError:
        return


@pytest.mark.parametrize(
    "content",
    [
        b"1\n0\n",
        b"0\n1\nt 0 -1\n",
        b"0\n1\nt -1 0\n",
        b"0\n1\nt 0\n",
        b"0\n2\nt 0 1\nt 0 2\n",
        b"0\n1\n../x 0 1\n",
        b"0\n1\n\xff 0 1\n",
        b"0\nx\n",
        b"\0" * 40,
    ],
)
def test_a_file_that_cannot_be_right_is_damaged(content):
    with pytest.raises(HighWatermarksDamagedError):
        decode(content)


def test_a_replica_begins_with_the_high_watermark_that_was_saved_and_never_above_its_end(
    filesystem, clock, append
):
    folder, log = opened(filesystem, clock)
    for _ in range(5):
        append(log, b"x")
    folder.high_watermarks.save({HERE: 3})
    assert opened(filesystem.after_kill(), clock)[1].high_watermark == 3
    folder.high_watermarks.save({HERE: 99})
    assert opened(filesystem.after_kill(), clock)[1].high_watermark == 5
    assert opened(filesystem.after_power_loss(), clock)[1].high_watermark == 0


def test_a_replica_of_which_nothing_was_saved_begins_at_its_start(filesystem, clock, append):
    _, log = opened(filesystem, clock)
    for _ in range(5):
        append(log, b"x")
        log.roll()
    log.high_watermark = 4
    log.delete_before(2)
    assert opened(filesystem.after_kill(), clock)[1].high_watermark == 2


def test_a_log_without_other_replicas_begins_with_its_end_whatever_was_saved(
    filesystem, clock, append
):
    folder, log = opened(filesystem, clock, replicated=False)
    for _ in range(5):
        append(log, b"x")
    folder.high_watermarks.save({HERE: 3})
    assert opened(filesystem.after_kill(), clock, replicated=False)[1].high_watermark == 5


@pytest.mark.parametrize("content", [b"", b"0\n5\nt 0 3\n", b"\0" * 30])
def test_a_damaged_file_says_nothing_and_is_told_of(filesystem, clock, append, caplog, content):
    folder, log = opened(filesystem, clock)
    append(log, b"x")
    folder.high_watermarks.save({HERE: 1})
    filesystem.peek(PATH)[:] = content
    folder, log = opened(filesystem.after_kill(), clock)
    assert log.high_watermark == 0
    assert PATH in caplog.text


def test_what_was_saved_survives_a_power_cut_at_every_step(filesystem, moments):
    filesystem.make_directory("/data")
    marks = HighWatermarks(filesystem, "/data")
    marks.save({HERE: 3})
    steps = moments(filesystem, lambda: marks.save({HERE: 8}))
    for left in steps:
        for seed in (None, 1, 2, 3, 4):
            saved = HighWatermarks(left.after_power_loss(seed), "/data").saved
            assert saved in ({HERE: 3}, {HERE: 8})
    assert HighWatermarks(steps[-1].after_power_loss(), "/data").saved == {HERE: 8}


def test_the_same_is_not_written_again_and_a_failed_save_is(filesystem):
    filesystem.make_directory("/data")
    marks = HighWatermarks(filesystem, "/data")
    marks.save({HERE: 3})
    syncs = filesystem.sync_count
    marks.save({HERE: 3})
    assert filesystem.sync_count == syncs
    with filesystem.failing("pwrite", errno.ENOSPC), pytest.raises(StorageError):
        marks.save({HERE: 4})
    assert HighWatermarks(filesystem, "/data").saved == {HERE: 3}
    marks.save({HERE: 4})
    assert HighWatermarks(filesystem, "/data").saved == {HERE: 4}

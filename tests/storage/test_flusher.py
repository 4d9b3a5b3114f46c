"""Group commit: who shares an fsync, who waits for the next, and what an error does to all of them."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest

from frieda.errors import BrokerError, ErrorCode
from frieda.storage.flusher import Flusher


class SlowDisk:
    """Makes every fsync wait until the test lets it go on."""

    def __init__(self, filesystem):
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.syncs = 0
        check = filesystem.check

        def slow(operation, path):
            if operation == "sync":
                self.syncs += 1
                self.begun.release()
                assert self.go_on.acquire(timeout=60)
            check(operation, path)

        filesystem.check = slow

    async def wait_for_sync(self):
        assert await asyncio.to_thread(self.begun.acquire, timeout=60)


@pytest.fixture
async def flusher():
    calls = []
    made = Flusher(
        asyncio.get_running_loop(),
        work_started=lambda: calls.append("started"),
        work_finished=lambda: calls.append("finished"),
        interval_s=0.001,
        max_waiting=50,
    )
    made.calls = calls
    yield made
    await made.close()
    assert calls.count("started") == calls.count("finished")


def waiter(flusher, log):
    future = asyncio.get_running_loop().create_future()
    flusher.request(log, log.log_end_offset, future.set_result)
    return future


async def test_all_that_wait_when_an_fsync_starts_share_it(filesystem, open_log, append, flusher):
    log = open_log(filesystem)
    disk = SlowDisk(filesystem)
    append(log, b"0")
    first = waiter(flusher, log)
    await disk.wait_for_sync()
    later = []
    for _ in range(20):
        append(log, b"x")
        later.append(waiter(flusher, log))
    disk.go_on.release()
    assert await first is None
    assert log.synced_offset == 1
    assert not any(future.done() for future in later)
    await disk.wait_for_sync()
    disk.go_on.release()
    assert await asyncio.gather(*later) == [None] * 20
    assert log.synced_offset == 21
    assert flusher.fsyncs == 2
    assert flusher.waiting == 0


async def test_logs_do_not_wait_for_each_other(filesystem, open_log, append, flusher, clock):
    slow = open_log(filesystem)
    disk = SlowDisk(filesystem)
    append(slow, b"0")
    waiting = waiter(flusher, slow)
    await disk.wait_for_sync()
    other_disk = type(filesystem)()
    other = open_log(other_disk)
    append(other, b"1")
    assert await waiter(flusher, other) is None
    assert not waiting.done()
    disk.go_on.release()
    assert await waiting is None


async def test_an_fsync_error_reaches_every_waiter_and_is_not_tried_again(
    filesystem, open_log, append, flusher
):
    log = open_log(filesystem)
    disk = SlowDisk(filesystem)
    append(log, b"0")
    futures = [waiter(flusher, log)]
    await disk.wait_for_sync()
    append(log, b"1")
    futures.append(waiter(flusher, log))
    filesystem.fail("sync", errno.EIO)
    disk.go_on.release()
    errors = await asyncio.gather(*futures)
    assert [error.code for error in errors] == [ErrorCode.LOG_FAILED] * 2
    assert disk.syncs == 1
    with pytest.raises(BrokerError) as caught:
        waiter(flusher, log)
    assert caught.value.code == ErrorCode.LOG_FAILED
    assert flusher.waiting == 0


async def test_the_number_of_waiters_is_bounded(filesystem, open_log, append, flusher):
    log = open_log(filesystem)
    disk = SlowDisk(filesystem)
    append(log, b"0")
    futures = [waiter(flusher, log) for _ in range(50)]
    with pytest.raises(BrokerError) as caught:
        waiter(flusher, log)
    assert caught.value.code == ErrorCode.BUSY
    disk.go_on.release(2)
    assert await asyncio.gather(*futures) == [None] * 50


async def test_a_batch_that_was_cut_off_while_it_waited_is_never_called_durable(
    filesystem, open_log, append, flusher, leaders_batch
):
    log = open_log(filesystem)
    disk = SlowDisk(filesystem)
    append(log, b"kept")
    kept = waiter(flusher, log)
    await disk.wait_for_sync()
    append(log, b"lost")
    lost = waiter(flusher, log)
    disk.go_on.release(100)
    cut = log.begin_cut(log.find_cut(1))
    await asyncio.to_thread(cut.run)
    assert cut.finish() == 1
    log.append_replicated(leaders_batch(b"another", 1, 1), 1)
    async with asyncio.timeout(60):
        errors = await asyncio.gather(kept, lost)
    for error in errors:
        assert isinstance(error, BrokerError)
        assert error.code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert flusher.waiting == 0
    assert log.synced_offset == 1
    assert await waiter(flusher, log) is None
    assert log.synced_offset == 2


async def test_who_waits_for_a_log_that_is_being_cut_is_told_and_no_fsync_runs_on(
    filesystem, open_log, append, flusher
):
    log = open_log(filesystem)
    disk = SlowDisk(filesystem)
    append(log, b"one")
    first = waiter(flusher, log)
    await disk.wait_for_sync()
    cut = log.begin_cut(log.find_cut(0))
    with pytest.raises(BrokerError) as caught:
        log.begin_sync()
    assert caught.value.code == ErrorCode.BUSY
    disk.go_on.release(100)
    assert (await first).code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    await asyncio.to_thread(cut.run)
    assert cut.finish() == 0
    await flusher.forget(log)
    assert flusher.waiting == 0


async def test_a_batch_that_rolled_the_log_is_synced_in_both_segments(
    filesystem, open_log, append, flusher
):
    work = []
    log = open_log(filesystem, segment_bytes=1024, background=work.append)
    append(log, b"x" * 900)
    append(log, b"y" * 900)
    assert await waiter(flusher, log) is None
    again = open_log(filesystem.after_power_loss(), segment_bytes=1024)
    assert again.log_end_offset == 2
    work.pop()()
    log.close()


async def test_the_interval_policy_syncs_soon(filesystem, open_log, append):
    finished = asyncio.Event()
    flusher = Flusher(
        asyncio.get_running_loop(),
        work_started=lambda: None,
        work_finished=finished.set,
        interval_s=0.001,
    )
    log = open_log(filesystem)
    append(log, b"x")
    flusher.sync_soon(log)
    flusher.sync_soon(log)
    async with asyncio.timeout(60):
        await finished.wait()
    assert log.synced_offset == 1
    assert flusher.fsyncs == 1
    await flusher.close()


async def test_close_finishes_what_is_under_way(filesystem, open_log, append, flusher):
    log = open_log(filesystem)
    disk = SlowDisk(filesystem)
    append(log, b"x")
    future = waiter(flusher, log)
    await disk.wait_for_sync()
    closing = asyncio.ensure_future(flusher.close())
    await asyncio.sleep(0)
    assert not closing.done()
    disk.go_on.release()
    await closing
    assert future.result() is None
    with pytest.raises(BrokerError) as caught:
        waiter(flusher, log)
    assert caught.value.code == ErrorCode.BROKER_STOPPING

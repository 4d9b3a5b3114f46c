"""Disks that are full or broken, from the client's side: typed errors, a log that stays readable, others untouched."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from frieda import Producer
from frieda.broker.server import Server
from frieda.errors import BrokerError, DeliveryTimeoutError, ErrorCode
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.testing.conversation import (
    create_topic,
    eventually,
    fetch_values,
    health_of,
    produce,
    topic_id_of,
)
from frieda.testing.filesystem import MemoryFileSystem
from frieda.testing.raw_client import RawClient, raw_client
from frieda.wire.messages import (
    AlterTopicsRequest,
    CommitOffsetsRequest,
    DeleteTopicsRequest,
    DescribeTopicsRequest,
    FetchOffsetsRequest,
    InitProducerRequest,
    OffsetCommit,
    TopicChange,
)

DATA = "/data"
ONE_SEGMENT = "events-0/"


@pytest.fixture
def filesystem() -> MemoryFileSystem:
    return MemoryFileSystem()


@pytest.fixture
async def server(filesystem: MemoryFileSystem) -> AsyncIterator[Server]:
    async with running_server(DATA, filesystem=filesystem) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[RawClient]:
    async with raw_client(server.urls[0]) as connected:
        yield connected


async def refusal_of(
    client: RawClient, topic_id: bytes, value: bytes, partition: int = 0
) -> BrokerError:
    """The error of a produce that must fail."""
    with pytest.raises(BrokerError) as caught:
        await produce(client, topic_id, value, partition=partition)
    return caught.value


async def fill(
    client: RawClient, topic_id: bytes, value: bytes, partition: int = 0
) -> tuple[int, BrokerError]:
    """Produce until it is refused: how many were taken, and the refusal."""
    for count in range(10_000):
        try:
            await produce(client, topic_id, value, partition=partition)
        except BrokerError as error:
            return count, error
    raise AssertionError("the disk never got full")


async def stored_after_a_crash(
    filesystem: MemoryFileSystem, partition: int = 0
) -> list[bytes | None]:
    async with (
        running_server(DATA, filesystem=filesystem.after_kill()) as server,
        raw_client(server.urls[0]) as client,
    ):
        return await fetch_values(client, await topic_id_of(client, "events"), partition=partition)


async def test_a_full_disk_is_said_and_may_be_tried_again_and_all_that_was_taken_stays(
    filesystem: MemoryFileSystem, client: RawClient
) -> None:
    topic_id = await create_topic(client, partitions=2)
    await produce(client, topic_id, b"roomy", partition=1)
    await produce(client, topic_id, b"first")
    filesystem.capacity_bytes = filesystem.used_bytes
    taken, error = await fill(client, topic_id, bytes(10_000))
    assert error.code is ErrorCode.DISK_FULL
    assert error.retriable
    assert "events-0" in error.detail
    assert "free some space" in error.detail
    health = await health_of(client)
    assert health.status == "degraded"
    assert "events-0: " in health.problems[0]
    assert "No space left" in health.problems[0]
    # What has room left goes on, and so do readers.
    assert await produce(client, topic_id, b"fits", partition=1) == 1
    assert len(await fetch_values(client, topic_id)) == taken + 1
    filesystem.heal()
    assert await produce(client, topic_id, b"last") == taken + 1
    assert (await health_of(client)).status == "ok"
    values = await fetch_values(client, topic_id)
    assert (values[0], values[-1], len(values)) == (b"first", b"last", taken + 2)
    assert await stored_after_a_crash(filesystem) == values
    assert await stored_after_a_crash(filesystem, 1) == [b"roomy", b"fits"]


async def test_a_write_error_is_said_and_the_next_write_may_succeed(
    filesystem: MemoryFileSystem, client: RawClient
) -> None:
    topic_id = await create_topic(client, partitions=2)
    await produce(client, topic_id, b"before")
    with filesystem.failing("pwrite", errno.EIO, path_part=ONE_SEGMENT):
        error = await refusal_of(client, topic_id, b"lost")
        assert error.code is ErrorCode.STORAGE_ERROR
        assert "Input/output error" in error.detail
        assert await fetch_values(client, topic_id) == [b"before"]
        assert await produce(client, topic_id, b"elsewhere", partition=1) == 0
        assert (await health_of(client)).status == "degraded"
    assert await produce(client, topic_id, b"after") == 1
    assert (await health_of(client)).status == "ok"
    assert await fetch_values(client, topic_id) == [b"before", b"after"]
    assert await stored_after_a_crash(filesystem) == [b"before", b"after"]


async def test_after_an_fsync_error_a_log_takes_no_more_and_nothing_unsafe_was_acknowledged(
    filesystem: MemoryFileSystem,
) -> None:
    async with (
        running_server(DATA, filesystem=filesystem, flush="batch") as server,
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await create_topic(client, partitions=2)
        await produce(client, topic_id, b"safe")
        with filesystem.failing("sync", errno.EIO, path_part=ONE_SEGMENT):
            for value in (b"unsafe", b"refused"):
                error = await refusal_of(client, topic_id, value)
                assert error.code is ErrorCode.LOG_FAILED
                assert not error.retriable
                assert "events-0" in error.detail
        # The disk may be well again: what the kernel dropped stays dropped, so the log does not trust it.
        error = await refusal_of(client, topic_id, b"too late")
        assert "until the broker restarts" in error.detail
        assert await fetch_values(client, topic_id) == [b"safe"]
        assert await produce(client, topic_id, b"elsewhere", partition=1) == 0
        health = await health_of(client)
        assert health.status == "degraded"
        assert ["fsync" in problem for problem in health.problems] == [True]
        stored = await stored_after_a_crash(filesystem.after_power_loss())
        assert stored[:1] == [b"safe"]
    # It stops in order all the same, and the next start makes the log good again.
    async with (
        running_server(DATA, filesystem=filesystem, flush="batch") as server,
        raw_client(server.urls[0]) as client,
    ):
        assert (await health_of(client)).status == "ok"
        assert (await fetch_values(client, topic_id))[0] == b"safe"
        await produce(client, topic_id, b"new")
        assert (await fetch_values(client, topic_id))[-1] == b"new"


async def test_an_fsync_error_between_acknowledgements_stops_the_log_too(
    filesystem: MemoryFileSystem,
) -> None:
    async with (
        running_server(
            DATA, filesystem=filesystem, flush="interval", flush_interval_ms=1
        ) as server,
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await create_topic(client)
        filesystem.fail("sync", errno.EIO, path_part=ONE_SEGMENT)
        async with asyncio.timeout(60):
            while (await health_of(client)).status == "ok":
                with contextlib.suppress(BrokerError):
                    await produce(client, topic_id, b"x")
        assert (await refusal_of(client, topic_id, b"y")).code is ErrorCode.LOG_FAILED
        assert set(await fetch_values(client, topic_id)) == {b"x"}


async def test_a_read_error_is_said_for_that_partition_only(
    filesystem: MemoryFileSystem, client: RawClient
) -> None:
    topic_id = await create_topic(client, partitions=2)
    for partition in (0, 1):
        await produce(client, topic_id, b"stored", partition=partition)
    with filesystem.failing("pread", errno.EIO, path_part=ONE_SEGMENT):
        with pytest.raises(BrokerError) as caught:
            await fetch_values(client, topic_id)
        assert caught.value.code is ErrorCode.STORAGE_ERROR
        assert await fetch_values(client, topic_id, partition=1) == [b"stored"]
    assert await fetch_values(client, topic_id) == [b"stored"]


# --- what is not a record ---------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", range(11))
async def test_a_topic_that_cannot_be_made_leaves_its_name_free(
    filesystem: MemoryFileSystem, client: RawClient, skip: int
) -> None:
    filesystem.fail("sync_directory", errno.EIO, skip=skip, times=1)
    with pytest.raises(BrokerError) as caught:
        await create_topic(client, partitions=10)
    assert caught.value.code is ErrorCode.STORAGE_ERROR
    filesystem.heal()
    topic_id = await create_topic(client, partitions=10)
    await produce(client, topic_id, b"x", partition=9)
    assert await stored_after_a_crash(filesystem, 9) == [b"x"]


async def test_a_topic_that_cannot_be_made_on_a_full_disk_leaves_its_name_free(
    filesystem: MemoryFileSystem, client: RawClient
) -> None:
    filesystem.capacity_bytes = filesystem.used_bytes + 2000
    with pytest.raises(BrokerError) as caught:
        await create_topic(client, partitions=100)
    assert caught.value.code is ErrorCode.DISK_FULL
    filesystem.heal()
    topic_id = await create_topic(client, partitions=2)
    await produce(client, topic_id, b"x")
    assert await stored_after_a_crash(filesystem) == [b"x"]


async def test_deleting_a_topic_makes_room_on_a_full_disk_and_altering_one_is_refused(
    filesystem: MemoryFileSystem, client: RawClient
) -> None:
    topic_id = await create_topic(client)
    kept_id = await create_topic(client, "kept")
    commits = (OffsetCommit("events", 0, 5, -1, ""),)
    await client.call(CommitOffsetsRequest("g", "", -1, commits))
    filesystem.capacity_bytes = filesystem.used_bytes + 100_000
    await fill(client, topic_id, bytes(10_000))
    filesystem.capacity_bytes = filesystem.used_bytes
    before = (await client.call(DescribeTopicsRequest(("kept",)))).topics
    changes = (TopicChange("kept", {"retention.ms": "1"}),)
    (refused,) = (await client.call(AlterTopicsRequest(changes))).topics
    assert refused.error_code == ErrorCode.DISK_FULL
    assert "free some space" in refused.detail
    assert (await client.call(DescribeTopicsRequest(("kept",)))).topics == before
    (outcome,) = (await client.call(DeleteTopicsRequest(("events",)))).topics
    assert outcome.error_code == 0, outcome.detail
    assert not [path for path in filesystem.paths() if "events" in path]
    assert (await client.call(FetchOffsetsRequest("g", None))).partitions == ()
    await produce(client, kept_id, bytes(10_000))
    (altered,) = (await client.call(AlterTopicsRequest(changes))).topics
    assert altered.error_code == 0, altered.detail


async def test_a_deletion_goes_on_when_its_client_leaves(
    filesystem: MemoryFileSystem, server: Server
) -> None:
    async with raw_client(server.urls[0]) as client:
        for name in ("events", "more"):
            await produce(client, await create_topic(client, name, 20), b"x")
        client.send(DeleteTopicsRequest(("events", "more")))
        await eventually(lambda: server.broker.topics.get("events") is None, "it has begun")
    await eventually(
        lambda: not [path for path in filesystem.paths() if "events" in path], "it is done"
    )
    async with raw_client(server.urls[0]) as client:
        assert await fetch_values(client, await create_topic(client)) == []


@pytest.mark.parametrize("operation", ["rename", "list", "sync_directory"])
async def test_a_topic_that_cannot_be_removed_is_removed_at_the_next_start(
    filesystem: MemoryFileSystem, operation: str
) -> None:
    async with (
        running_server(DATA, filesystem=filesystem) as server,
        raw_client(server.urls[0]) as client,
    ):
        await produce(client, await create_topic(client), b"x")
        with filesystem.failing(operation, errno.EIO, path_part="events-0"):  # type: ignore[arg-type]
            (outcome,) = (await client.call(DeleteTopicsRequest(("events",)))).topics
        assert outcome.error_code == 0
        with pytest.raises(BrokerError):
            await topic_id_of(client, "events")
    async with running_server(DATA, filesystem=filesystem):
        assert not [path for path in filesystem.paths() if "events" in path]


async def test_a_commit_that_cannot_be_stored_is_refused_and_does_not_count(
    filesystem: MemoryFileSystem, client: RawClient
) -> None:
    await create_topic(client)

    def commit(offset: int) -> CommitOffsetsRequest:
        return CommitOffsetsRequest("g", "", -1, (OffsetCommit("events", 0, offset, -1, ""),))

    await client.call(commit(5))
    with filesystem.failing("pwrite", errno.ENOSPC), pytest.raises(BrokerError) as caught:
        await client.call(commit(6))
    assert caught.value.code is ErrorCode.DISK_FULL
    committed = (await client.call(FetchOffsetsRequest("g", None))).partitions
    assert [item.offset for item in committed] == [5]


async def test_a_producer_id_that_cannot_be_noted_is_not_given_out(
    filesystem: MemoryFileSystem, client: RawClient
) -> None:
    with filesystem.failing("rename", errno.EIO):
        for _ in range(3):
            with pytest.raises(BrokerError) as caught:
                await client.call(InitProducerRequest(None, -1, -1))
            assert caught.value.code is ErrorCode.STORAGE_ERROR
    first = (await client.call(InitProducerRequest(None, -1, -1))).producer_id
    async with (
        running_server(DATA, filesystem=filesystem.after_kill()) as server,
        raw_client(server.urls[0]) as other,
    ):
        assert (await other.call(InitProducerRequest(None, -1, -1))).producer_id > first


async def test_a_broker_on_a_full_disk_stops_in_order_and_starts_again(
    filesystem: MemoryFileSystem,
) -> None:
    async with (
        running_server(DATA, filesystem=filesystem) as server,
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await create_topic(client)
        await produce(client, topic_id, b"x")
        filesystem.capacity_bytes = 0
    filesystem.heal()
    assert await stored_after_a_crash(filesystem) == [b"x"]
    async with (
        running_server(DATA, filesystem=filesystem) as server,
        raw_client(server.urls[0]) as client,
    ):
        assert await fetch_values(client, topic_id) == [b"x"]


async def test_a_broker_that_fails_to_start_can_be_started_again(
    filesystem: MemoryFileSystem,
) -> None:
    async with (
        running_server(DATA, filesystem=filesystem) as server,
        raw_client(server.urls[0]) as client,
    ):
        await produce(client, await create_topic(client), b"x")
    for skip in range(6):
        filesystem.fail("open", errno.EMFILE, skip=skip)
        with pytest.raises(BrokerError):
            async with running_server(DATA, filesystem=filesystem):
                pass
        filesystem.heal()
    assert filesystem.open_files == 0
    async with (
        running_server(DATA, filesystem=filesystem) as server,
        raw_client(server.urls[0]) as client,
    ):
        assert await fetch_values(client, await topic_id_of(client, "events")) == [b"x"]


# --- through the producer ---------------------------------------------------------------------------------


async def test_a_producer_waits_out_a_full_disk(
    filesystem: MemoryFileSystem, server: Server, client: RawClient
) -> None:
    await create_topic(client)
    async with Producer(server.urls[0], polling="event", retry_backoff_s=0.01) as producer:
        await producer.send("events", b"0")
        filesystem.fail("pwrite", errno.ENOSPC, path_part=ONE_SEGMENT, times=3)
        sent = [producer.send_nowait("events", b"%d" % number) for number in range(1, 50)]
        offsets = [(await future).offset for future in sent]
    assert offsets == list(range(1, 50))
    assert await stored_after_a_crash(filesystem) == [b"%d" % number for number in range(50)]


async def test_a_producer_says_so_when_the_disk_stays_full_or_the_log_has_failed(
    filesystem: MemoryFileSystem,
) -> None:
    async with (
        running_server(DATA, filesystem=filesystem, flush="batch") as server,
        raw_client(server.urls[0]) as client,
    ):
        await create_topic(client)
        settings = {"retry_backoff_s": 0.01, "delivery_timeout_s": 0.3}
        async with Producer(server.urls[0], polling="event", **settings) as producer:
            await producer.send("events", b"0")
            with (
                filesystem.failing("pwrite", errno.ENOSPC, path_part=ONE_SEGMENT),
                pytest.raises((DeliveryTimeoutError, BrokerError), match="DISK_FULL"),
            ):
                await producer.send("events", b"lost")
            with (
                filesystem.failing("sync", errno.EIO, path_part=ONE_SEGMENT),
                pytest.raises(BrokerError) as caught,
            ):
                await producer.send("events", b"unsafe")
            assert caught.value.code is ErrorCode.LOG_FAILED


# --- a real disk ------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MiB."""
    if os.geteuid() != 0:
        pytest.skip(
            "NOT TESTED: mounting a small disk needs root; only the disk in memory was filled"
        )
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("flush", ["never", "batch"])
async def test_a_real_disk_that_is_full_loses_nothing_and_goes_on_when_there_is_room(
    small_disk: Path, flush: str
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    with BrokerProcess(small_disk / "data", "--flush", flush) as broker:
        async with raw_client(broker.url) as client:
            topic_id = await create_topic(client)
            taken, error = await fill(client, topic_id, b"x" * 20_000)
            assert error.code is ErrorCode.DISK_FULL
            assert taken >= 50
            assert (await health_of(client)).status == "degraded"
            assert await fetch_values(client, topic_id) == [b"x" * 20_000] * taken
        broker.kill()
        broker.start()
        async with raw_client(broker.url) as client:
            assert await fetch_values(client, topic_id) == [b"x" * 20_000] * taken
            ballast.unlink()
            assert await produce(client, topic_id, b"room") == taken
            assert (await health_of(client)).status == "ok"
        code, errors = broker.stop()
        assert (code, errors) == (0, "")
        broker.start()
        async with raw_client(broker.url) as client:
            assert await fetch_values(client, topic_id) == [b"x" * 20_000] * taken + [b"room"]

"""What health says of the start: how long the folder took to open, and how much of it had to be read."""

from __future__ import annotations

from pathlib import Path

from frieda.clock import ManualClock
from frieda.storage.filesystem import RealFileSystem
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.testing.conversation import create_topic, health_of, produce
from frieda.testing.raw_client import raw_client


class SlowDisk(RealFileSystem):
    """Each look into a folder takes a quarter of a second of the test's clock."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.looks = 0
        self._clock = clock

    def list_directory(self, path: str) -> list[str]:
        self.looks += 1
        self._clock.advance(0.25)
        return super().list_directory(path)


async def test_health_says_how_long_the_folder_took_to_open_and_no_more(tmp_path: Path) -> None:
    clock = ManualClock()
    disk = SlowDisk(clock)
    async with (
        running_server(tmp_path, filesystem=disk, clock=clock) as server,
        raw_client(server.urls[0]) as client,
    ):
        opening_ms = 250 * disk.looks
        await create_topic(client)
        assert 250 * disk.looks > opening_ms > 0, "a topic that is made later is no part of it"
        assert (await health_of(client)).facts["opening_ms"] == opening_ms


async def scanned_segments(broker: BrokerProcess) -> int:
    async with raw_client(broker.url) as client:
        return (await health_of(client)).facts["scanned_segments"]


async def test_health_counts_a_segment_for_each_partition_after_a_kill_and_none_after_a_stop(
    tmp_path: Path,
) -> None:
    with BrokerProcess(tmp_path) as broker:
        async with raw_client(broker.url) as client:
            topic_id = await create_topic(client, partitions=3, segment_bytes="1024")
            for partition in range(3):
                for _ in range(5):
                    await produce(client, topic_id, b"x" * 600, partition=partition)
        assert await scanned_segments(broker) == 0, "there was nothing when it started"
        assert broker.stop() == (0, "")
        broker.start()
        assert await scanned_segments(broker) == 0
        broker.kill()
        broker.start()
        assert await scanned_segments(broker) == 3, "the last one of each, of several"
        assert broker.stop() == (0, "")

"""Leader and follower over real logs, all they say as bytes: in the end the follower has what the leader has."""

from __future__ import annotations

from collections import deque

import pytest

from frieda.clock import ManualClock
from frieda.cluster.state import PartitionState
from frieda.config import TopicConfig
from frieda.errors import ErrorCode
from frieda.replication.codec import decode, encode
from frieda.replication.effects import Acknowledge, AppendFailed, Cut, Effect, Read, Send
from frieda.replication.follower import Follower
from frieda.replication.leader import ACKS_ALL, Leader
from frieda.replication.lease import Lease
from frieda.replication.messages import Append
from frieda.replication.settings import ReplicationSettings
from frieda.storage.leader_epochs import LeaderEpochs
from frieda.storage.log import PartitionLog
from frieda.testing.batches import make_batch
from frieda.testing.filesystem import MemoryFileSystem
from frieda.wire.batch import check_batch, iterate_batches, read_header

TOPIC = b"t" * 16
LEADER, FOLLOWER = 1, 2


class Stored:
    """A PartitionLog as replication sees it, flush=never."""

    def __init__(self) -> None:
        config = TopicConfig(segment_bytes=1024, index_interval_bytes=1024)
        files = MemoryFileSystem()
        self.log = PartitionLog.open(files, "/data/t-0", config, ManualClock(), clean=False)

    @property
    def log_start_offset(self) -> int:
        return self.log.log_start_offset

    @property
    def log_end_offset(self) -> int:
        return self.log.log_end_offset

    safe_offset = log_end_offset

    @property
    def high_watermark(self) -> int:
        return self.log.high_watermark

    @property
    def epochs(self) -> LeaderEpochs:
        return self.log.epochs

    def append_replicated(self, batches: memoryview, leader_epoch: int) -> int:
        return self.log.append_replicated(batches, leader_epoch)

    def append(self, value: bytes, leader_epoch: int) -> memoryview:
        batch = make_batch([value, value])
        self.log.append(batch, check_batch(batch), leader_epoch)
        return batch

    def read(self, offset: int, max_bytes: int = 1 << 20) -> bytearray:
        plan = self.log.plan_read(offset, max_bytes)
        data = bytearray(plan.size_bytes)
        del data[plan.read_into(memoryview(data)) :]
        return data

    def everything(self) -> list[bytes]:
        batches: list[bytes] = []
        offset = self.log_start_offset
        while offset < self.log_end_offset:
            data = self.read(offset)
            for position, header in iterate_batches(data):
                batches.append(bytes(data[position : position + header.size_bytes]))
                offset = header.next_offset
        return batches


class Pair:
    """A leader and a follower; every message between them goes through its bytes."""

    def __init__(self, leader_log: Stored, follower_log: Stored, leader_epoch: int) -> None:
        self.leader_log, self.follower_log = leader_log, follower_log
        settings = ReplicationSettings(read_bytes=300)
        state = PartitionState(
            replicas=(LEADER, FOLLOWER),
            isr=(LEADER, FOLLOWER),
            leader=LEADER,
            leader_epoch=leader_epoch,
        )
        lease = Lease(1000, 100)
        lease.answered(0)
        self.leader = Leader(LEADER, state, leader_log, lease, settings, 0)
        self.follower = Follower(follower_log, 0, "life", settings)
        self.acknowledged: list[object] = []
        self.failures: list[ErrorCode] = []
        self.damage = False
        self.run(self.leader.start(frozenset({FOLLOWER}), 0))

    def produce(self, value: bytes) -> None:
        assert self.leader.admit(ACKS_ALL, 0) is None
        batch = self.leader_log.append(value, self.leader.leader_epoch)
        end = self.leader_log.log_end_offset
        size = len(batch)
        self.run(self.leader.appended(end - 2, end, batch, size, ACKS_ALL, value, 0))

    def run(self, effects: list[Effect]) -> None:
        waiting = deque(effects)
        while waiting:
            waiting.extend(self.do(waiting.popleft()))

    def do(self, effect: Effect) -> list[Effect]:
        match effect:
            case Send(to, message):
                data = bytearray(encode(TOPIC, 0, message))
                if isinstance(message, Append):
                    data += message.batches  # type: ignore[arg-type]
                    if self.damage:
                        data[-1] ^= 1
                decoded = decode(memoryview(data)).message
                if to == FOLLOWER:
                    return self.follower.received(LEADER, decoded)  # type: ignore[arg-type]
                return self.leader.received(FOLLOWER, decoded, 0)  # type: ignore[arg-type]
            case Read(follower, stream, offset, max_bytes):
                data = self.leader_log.read(offset, max_bytes)
                headers = [header for _, header in iterate_batches(data)]
                base, end = headers[0].base_offset, headers[-1].next_offset
                view = memoryview(data)
                return self.leader.read_done(follower, stream, base, end, view, len(data), 0)
            case Cut(offset, reset, _):
                if reset:
                    self.follower_log.log.reset_to(offset)
                else:
                    self.follower_log.log.truncate_to(offset)
                return self.follower.cut_done()
            case Acknowledge(token, error):
                assert error is None
                self.acknowledged.append(token)
            case AppendFailed(code):
                self.failures.append(code)
        return []


def test_a_follower_gets_the_bytes_of_its_leader() -> None:
    pair = Pair(Stored(), Stored(), 1)
    values = [b"value %d" % number for number in range(30)]
    for value in values:
        pair.produce(value)
    assert pair.acknowledged == values
    assert pair.follower_log.everything() == pair.leader_log.everything()
    assert pair.follower_log.epochs.entries() == [(1, 0)]


def test_a_new_replica_is_fed_from_the_log() -> None:
    leader_log = Stored()
    for number in range(40):
        leader_log.append(b"old %d" % number, 1 + number // 10)
    pair = Pair(leader_log, Stored(), 9)
    pair.produce(b"new")
    assert pair.follower_log.everything() == leader_log.everything()
    assert pair.follower_log.epochs.entries() == leader_log.epochs.entries()


@pytest.mark.parametrize("shared", [0, 1, 7])
def test_a_divergent_tail_is_cut_and_replaced(shared: int) -> None:
    leader_log, follower_log = Stored(), Stored()
    for number in range(shared):
        for log in (leader_log, follower_log):
            log.append(b"shared %d" % number, 1)
    for number in range(5):
        follower_log.append(b"never acknowledged %d" % number, 1 if shared else 2)
    leader_log.append(b"of the leader between", 3)
    pair = Pair(leader_log, follower_log, 4)
    pair.produce(b"new")
    assert pair.acknowledged == [b"new"]
    assert follower_log.everything() == leader_log.everything()
    assert follower_log.epochs.entries() == leader_log.epochs.entries()


def test_a_follower_far_behind_the_start_of_the_log_begins_anew() -> None:
    leader_log, follower_log = Stored(), Stored()
    for number in range(60):
        batch = leader_log.append(b"value %d" % number, 1)
        if number < 3:
            follower_log.append_replicated(batch, 1)
    leader_log.log.high_watermark = leader_log.log_end_offset
    leader_log.log.delete_before(100)
    pair = Pair(leader_log, follower_log, 2)
    pair.produce(b"new")
    assert pair.acknowledged == [b"new"]
    assert (follower_log.log_start_offset, follower_log.log_end_offset) == (100, 122)
    assert read_header(follower_log.read(100)).base_offset == 100


def test_bytes_that_are_damaged_on_their_way_are_not_stored() -> None:
    pair = Pair(Stored(), Stored(), 1)
    pair.damage = True
    pair.produce(b"value")
    assert pair.failures == [ErrorCode.CORRUPT_MESSAGE]
    assert (pair.acknowledged, pair.follower_log.everything()) == ([], [])
    pair.damage = False
    pair.run(pair.leader.tick(3_000_000_000))
    assert pair.follower_log.everything() == pair.leader_log.everything()

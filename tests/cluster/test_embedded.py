"""The metadata of one broker: durable when it says so, old or new after a crash, never a producer id twice."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.cluster.embedded import PRODUCER_ID_BLOCK, EmbeddedStore, TopicRecord
from frieda.errors import ErrorCode, StorageError
from frieda.storage.folder import DataFolder
from frieda.testing.filesystem import MemoryFileSystem, Operation

FILE = "/data/metadata.json"


def opened(filesystem: MemoryFileSystem) -> EmbeddedStore:
    return EmbeddedStore(filesystem, DataFolder.open(filesystem, "/data", 0))


def reopened(filesystem: MemoryFileSystem) -> EmbeddedStore:
    """What a new process finds after a power cut that loses all that may be lost."""
    return opened(filesystem.after_power_loss())


def state_of(store: EmbeddedStore) -> tuple[frozenset[tuple[object, ...]], frozenset[bytes]]:
    topics = frozenset(
        (topic.name, topic.topic_id, topic.partitions, frozenset(topic.configs.items()))
        for topic in store.topics
    )
    return topics, store.deleted_topic_ids


@pytest.fixture
def filesystem() -> MemoryFileSystem:
    return MemoryFileSystem()


def test_a_new_folder_gets_a_cluster_id_that_stays(filesystem: MemoryFileSystem) -> None:
    store = opened(filesystem)
    assert len(store.cluster_id) == 32
    assert store.topics == ()
    assert reopened(filesystem).cluster_id == store.cluster_id
    assert opened(MemoryFileSystem()).cluster_id != store.cluster_id


def test_what_a_method_returned_from_is_there_after_a_power_cut(
    filesystem: MemoryFileSystem,
) -> None:
    store = opened(filesystem)
    made = store.create_topic("events", 3, {"retention.ms": "5"})
    assert reopened(filesystem).topics == (made,)
    changed = store.alter_topic("events", {"flush": "batch"})
    assert changed == TopicRecord("events", made.topic_id, 3, {"flush": "batch"})
    assert reopened(filesystem).topics == (changed,)
    store.delete_topic("events")
    after = reopened(filesystem)
    assert (after.topics, after.deleted_topic_ids) == ((), frozenset({made.topic_id}))
    store.forget_deleted([made.topic_id])
    assert reopened(filesystem).deleted_topic_ids == frozenset()


def test_a_topic_made_again_is_another_topic(filesystem: MemoryFileSystem) -> None:
    store = opened(filesystem)
    first = store.create_topic("events", 1, {})
    store.delete_topic("events")
    second = store.create_topic("events", 1, {})
    assert first.topic_id != second.topic_id
    assert store.deleted_topic_ids == {first.topic_id}


@pytest.mark.parametrize(
    "change",
    [lambda store: store.alter_topic("nowhere", {}), lambda store: store.delete_topic("nowhere")],
)
def test_a_topic_that_is_not_there_cannot_be_changed(
    filesystem: MemoryFileSystem, change: Callable[[EmbeddedStore], object]
) -> None:
    store = opened(filesystem)
    with pytest.raises(KeyError, match="nowhere"):
        change(store)


def test_forgetting_what_is_forgotten_writes_nothing(filesystem: MemoryFileSystem) -> None:
    store = opened(filesystem)
    syncs = filesystem.sync_count
    store.forget_deleted([b"?" * 16])
    assert filesystem.sync_count == syncs


# --- producer ids -----------------------------------------------------------------------------------------


def test_producer_ids_count_up_and_never_repeat_across_power_cuts(
    filesystem: MemoryFileSystem,
) -> None:
    seen: list[int] = []
    for taken in (1, 3, PRODUCER_ID_BLOCK, PRODUCER_ID_BLOCK + 1, 2):
        store = opened(filesystem)
        seen += [store.next_producer_id() for _ in range(taken)]
        filesystem = filesystem.after_power_loss()
    assert seen == sorted(set(seen))
    assert seen[0] == 0


def test_a_block_of_producer_ids_costs_one_write(filesystem: MemoryFileSystem) -> None:
    store = opened(filesystem)
    store.next_producer_id()
    syncs = filesystem.sync_count
    for _ in range(PRODUCER_ID_BLOCK - 1):
        store.next_producer_id()
    assert filesystem.sync_count == syncs
    store.next_producer_id()
    assert filesystem.sync_count > syncs


@pytest.mark.parametrize("operation", ["open", "pwrite", "sync", "rename", "sync_directory"])
def test_no_producer_id_is_given_out_that_could_not_be_noted(
    filesystem: MemoryFileSystem, operation: Operation
) -> None:
    store = opened(filesystem)
    last = [store.next_producer_id() for _ in range(PRODUCER_ID_BLOCK)][-1]
    with filesystem.failing(operation, errno.EIO):
        for _ in range(3):
            with pytest.raises(StorageError):
                store.next_producer_id()
    given_out = store.next_producer_id()
    assert given_out > last
    assert reopened(filesystem).next_producer_id() > given_out


# --- faults -----------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[EmbeddedStore], object]] = {
    "create": lambda store: store.create_topic("new", 2, {"flush": "never"}),
    "alter": lambda store: store.alter_topic("old", {"flush": "batch"}),
    "delete": lambda store: store.delete_topic("old"),
    "forget": lambda store: store.forget_deleted(store.deleted_topic_ids),
}


@pytest.mark.parametrize("operation", ["open", "truncate", "pwrite", "sync", "rename"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_that_cannot_be_stored_has_not_happened(
    filesystem: MemoryFileSystem, change: Callable[[EmbeddedStore], object], operation: Operation
) -> None:
    store = opened(filesystem)
    store.create_topic("old", 1, {})
    store.create_topic("gone", 1, {})
    store.delete_topic("gone")
    before = state_of(store)
    with filesystem.failing(operation, errno.ENOSPC), pytest.raises(StorageError) as caught:
        change(store)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert FILE in caught.value.detail
    assert state_of(store) == before
    assert state_of(reopened(filesystem)) == before
    assert state_of(opened(filesystem.after_kill())) == before
    change(store)
    assert state_of(store) != before
    assert state_of(reopened(filesystem)) == state_of(store)


def test_on_a_full_disk_a_topic_can_be_deleted_and_nothing_else_is_changed(
    filesystem: MemoryFileSystem,
) -> None:
    store = opened(filesystem)
    for number in range(100):  # more metadata than the least reserve holds
        store.create_topic(f"topic-{number}", 1, {"retention.ms": "1" * 1000})
    filesystem.capacity_bytes = filesystem.used_bytes
    before = state_of(store)
    for change in (
        lambda: store.create_topic("new", 1, {}),
        lambda: store.alter_topic("topic-7", {"flush": "batch"}),
        store.next_producer_id,
    ):
        with pytest.raises(StorageError, match="free some space") as caught:
            change()
        assert caught.value.code is ErrorCode.DISK_FULL
        assert state_of(store) == state_of(reopened(filesystem)) == before
    gone = {topic.topic_id for topic in store.topics[:2]}
    store.delete_topic("topic-0")
    store.delete_topic("topic-1")
    assert reopened(filesystem).deleted_topic_ids == gone
    store.forget_deleted(gone)
    assert len(reopened(filesystem).topics) == 98
    filesystem.heal()
    store.create_topic("new", 1, {})
    filesystem.capacity_bytes = filesystem.used_bytes
    store.delete_topic("new")  # the reserve was made again


def test_the_reserve_is_kept_across_restarts_also_when_someone_removed_it(
    filesystem: MemoryFileSystem,
) -> None:
    opened(filesystem).create_topic("events", 1, {})
    filesystem.unlink("/data/metadata.reserve")
    store = opened(filesystem.after_kill())
    filesystem = store._filesystem  # type: ignore[assignment]
    filesystem.capacity_bytes = filesystem.used_bytes
    store.delete_topic("events")
    assert reopened(filesystem).topics == ()


operations = st.lists(
    st.tuples(
        st.sampled_from(["create", "alter", "delete", "forget", "producer"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 3),
    ),
    max_size=12,
)


@given(operations, st.integers(0, 60), st.none() | st.integers(0, 10**6))
def test_after_a_crash_at_any_write_the_metadata_is_the_old_or_the_new(
    steps: list[tuple[str, str, int]], crash_after: int, seed: int | None
) -> None:
    filesystem = MemoryFileSystem()
    store = opened(filesystem)
    states = [state_of(store)]
    given_out: list[int] = []

    def apply(kind: str, name: str, number: int) -> None:
        known = {topic.name for topic in store.topics}
        match kind:
            case "create" if name not in known:
                store.create_topic(name, number, {})
            case "alter" if name in known:
                store.alter_topic(name, {"retention.ms": str(number)})
            case "delete" if name in known:
                store.delete_topic(name)
            case "forget":
                store.forget_deleted(store.deleted_topic_ids)
            case "producer":
                given_out.append(store.next_producer_id())

    # Every operation fails from here on, as for a process that is gone.
    for operation in ("pwrite", "sync", "rename", "sync_directory"):
        filesystem.fail(operation, errno.EIO, skip=crash_after // 4)
    # What the step at which it ended was about to store cannot be seen from outside: it is worked out on a copy.
    for step in steps:
        intact = filesystem.after_kill()
        try:
            apply(*step)
        except StorageError:
            topic_ids_before = states[-1]
            store = opened(intact)
            with_step = len(given_out)
            apply(*step)
            del given_out[with_step:]
            found = state_of(opened(filesystem.after_power_loss(seed)))
            assert found == topic_ids_before or shape(found) == shape(state_of(store))
            break
        states.append(state_of(store))
    else:
        assert state_of(opened(filesystem.after_power_loss(seed))) == states[-1]
    fresh = opened(filesystem.after_power_loss(seed))
    assert fresh.next_producer_id() not in given_out


def shape(state: tuple[frozenset[tuple[object, ...]], frozenset[bytes]]) -> object:
    """A state without the ids, which are drawn anew each time."""
    topics, deleted = state
    return sorted((name, count, sorted(configs)) for name, _, count, configs in topics), len(
        deleted
    )  # type: ignore[misc,call-overload]


# --- what cannot be read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"7",
        b'"text"',
        b"{}",
        b'{"format": 1}',
        b'{"format": "1"}',
        b'{"format": 1, "cluster_id": "c", "producer_ids_from": "many"}',
    ],
)
def test_a_damaged_file_is_named_and_left_alone(
    filesystem: MemoryFileSystem, content: bytes
) -> None:
    opened(filesystem)
    filesystem.peek(FILE)[:] = content
    with pytest.raises(StorageError, match=r"metadata\.json") as caught:
        opened(filesystem.after_kill())
    assert caught.value.code is ErrorCode.STORAGE_ERROR
    assert bytes(filesystem.peek(FILE)) == content


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        {},
        {"id": "zz", "partitions": 1, "configs": {}},
        {"id": "00" * 16, "partitions": "x", "configs": {}},
        {"id": "00" * 16, "partitions": 1, "configs": 7},
        {"id": "00" * 15, "partitions": 1, "configs": {}},
        {"id": "00" * 16, "partitions": 0, "configs": {}},
        {"id": "00" * 16, "partitions": 10**9, "configs": {}},
        {"id": "00" * 16, "partitions": 1, "configs": {"flush": 7}},
    ],
)
def test_a_damaged_topic_is_damage_too(filesystem: MemoryFileSystem, entry: object) -> None:
    opened(filesystem).create_topic("events", 1, {})
    document = json.loads(filesystem.peek(FILE))
    document["topics"]["events"] = entry
    filesystem.peek(FILE)[:] = json.dumps(document).encode()
    with pytest.raises(StorageError, match="damaged"):
        opened(filesystem.after_kill())


def test_a_newer_format_is_not_guessed_at(filesystem: MemoryFileSystem) -> None:
    opened(filesystem)
    document = json.loads(filesystem.peek(FILE))
    filesystem.peek(FILE)[:] = json.dumps(document | {"format": 2}).encode()
    with pytest.raises(StorageError, match="has format 2; this broker reads 1"):
        opened(filesystem.after_kill())


def test_logs_without_metadata_are_not_taken_for_a_new_folder(
    filesystem: MemoryFileSystem,
) -> None:
    opened(filesystem)
    filesystem.make_directory("/data/events-0")
    filesystem.unlink(FILE)
    with pytest.raises(StorageError, match="1 logs beside it"):
        opened(filesystem.after_kill())

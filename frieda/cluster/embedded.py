"""The metadata of a cluster of one: topics and producer ids in one small file of the data folder.

The file is JSON, replaced as a whole and synced before a change counts as made, so that a kill at any line
leaves the old state or the new one. Producer ids are handed out from blocks: the file says from where the
next block starts, and what is left of a block is skipped after a restart.

To replace the file takes room for another one, which a full disk does not have. So that a deletion, which frees
space, can still be noted there, a second file keeps some room in reserve and is given up for it.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from frieda.errors import ErrorCode, StorageError
from frieda.storage.filesystem import FileSystem, read_file, replace_file, storage_error
from frieda.storage.folder import DataFolder

logger = logging.getLogger(__name__)

FILE_NAME: Final = "metadata.json"
RESERVE_NAME: Final = "metadata.reserve"
RESERVE_BYTES: Final = 64 * 1024
"""The least that is kept in reserve; a large file of metadata has twice its own size."""
FORMAT_VERSION: Final = 1
PRODUCER_ID_BLOCK: Final = 1000
MAX_FILE_BYTES: Final = 256 * 1024 * 1024
MAX_PARTITIONS: Final = 10_000
"""Of one topic."""


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """What the cluster knows of a topic. `configs` holds only what differs from the broker's own."""

    name: str
    topic_id: bytes
    partitions: int
    configs: dict[str, str]


class EmbeddedStore:
    """Owned by the broker; every change is durable when its method returns, and asks the disk for that.

    One change at a time; it may run in a thread while others read `topics`.
    """

    def __init__(self, filesystem: FileSystem, folder: DataFolder) -> None:
        """Load, or begin, the metadata of `folder`.

        Raises StorageError when the file makes no sense, or is missing although there are logs.
        """
        self._filesystem = filesystem
        self._path = os.path.join(folder.path, FILE_NAME)
        self._reserve_path = os.path.join(folder.path, RESERVE_NAME)
        self._reserve_bytes = 0
        self.cluster_id = uuid.uuid4().hex
        self._topics: dict[str, TopicRecord] = {}
        self._deleted: frozenset[bytes] = frozenset()
        self._next_producer_id = 0
        self._block_end = 0
        content = read_file(filesystem, self._path, MAX_FILE_BYTES)
        if content is not None:
            self._load(content)
            self._keep_reserve(len(content))
            return
        if logs := folder.partitions():
            raise StorageError(
                ErrorCode.STORAGE_ERROR,
                f"{self._path} is missing, but there are {len(logs)} logs beside it; restore it from a copy",
            )
        self._save()

    @property
    def topics(self) -> tuple[TopicRecord, ...]:
        return tuple(self._topics.values())

    def create_topic(self, name: str, partitions: int, configs: dict[str, str]) -> TopicRecord:
        """A new topic under a new id. The caller has checked the name."""
        record = TopicRecord(name, uuid.uuid4().bytes, partitions, configs)
        self._change(self._topics | {name: record})
        return record

    def alter_topic(self, name: str, configs: dict[str, str]) -> TopicRecord:
        """Replace a topic's settings. Raises KeyError for an unknown name."""
        old = self._topics[name]
        record = TopicRecord(name, old.topic_id, old.partitions, configs)
        self._change(self._topics | {name: record})
        return record

    def delete_topic(self, name: str) -> None:
        """Forget a topic. Its id stays in `deleted_topic_ids` until `forget_deleted`. Raises KeyError."""
        remaining = dict(self._topics)
        gone = remaining.pop(name)
        self._change(remaining, self._deleted | {gone.topic_id}, frees_space=True)

    @property
    def deleted_topic_ids(self) -> frozenset[bytes]:
        """Topics whose logs may still be there: a deletion that a crash cut short goes on at the next start."""
        return self._deleted

    def forget_deleted(self, topic_ids: Iterable[bytes]) -> None:
        """The logs of these topics are gone."""
        remaining = self._deleted.difference(topic_ids)
        if remaining != self._deleted:
            self._change(self._topics, remaining, frees_space=True)

    def next_producer_id(self) -> int:
        """A producer id that no one has had, also after a crash. Raises StorageError."""
        if self._next_producer_id >= self._block_end:
            before = self._block_end
            self._block_end = self._next_producer_id + PRODUCER_ID_BLOCK
            try:
                self._save()
            except StorageError:
                self._block_end = before
                raise
        producer_id = self._next_producer_id
        self._next_producer_id += 1
        return producer_id

    def _change(
        self,
        topics: dict[str, TopicRecord],
        deleted: frozenset[bytes] | None = None,
        *,
        frees_space: bool = False,
    ) -> None:
        before = self._topics, self._deleted
        self._topics = topics
        self._deleted = self._deleted if deleted is None else deleted
        try:
            self._save(frees_space=frees_space)
        except StorageError:
            self._topics, self._deleted = before
            raise

    def _save(self, *, frees_space: bool = False) -> None:
        document = {
            "format": FORMAT_VERSION,
            "cluster_id": self.cluster_id,
            "producer_ids_from": self._block_end,
            "deleted_topics": sorted(topic_id.hex() for topic_id in self._deleted),
            "topics": {
                record.name: {
                    "id": record.topic_id.hex(),
                    "partitions": record.partitions,
                    "configs": record.configs,
                }
                for record in self._topics.values()
            },
        }
        content = json.dumps(document, indent=1).encode()
        try:
            replace_file(self._filesystem, self._path, content)
        except StorageError as error:
            if not frees_space or error.code is not ErrorCode.DISK_FULL:
                raise
            self._give_up_reserve()
            replace_file(self._filesystem, self._path, content)
        self._keep_reserve(len(content))

    def _keep_reserve(self, content_bytes: int) -> None:
        """Hold room for a file of this size and somewhat more. Where there is none, the next change tries again."""
        wanted = max(RESERVE_BYTES, 2 * content_bytes)
        if self._reserve_bytes >= wanted:
            return
        try:
            file = self._filesystem.open(self._reserve_path, create=True)
            try:
                file.allocate(0, wanted)
            finally:
                file.release()
        except OSError as error:
            logger.warning(
                "no space is kept in reserve: %s; on a full disk a topic can perhaps not be deleted",
                error,
            )
        else:
            self._reserve_bytes = wanted

    def _give_up_reserve(self) -> None:
        self._reserve_bytes = 0
        try:
            self._filesystem.unlink(self._reserve_path)
        except OSError as error:
            raise storage_error(error, f"cannot remove {self._reserve_path}") from error

    def _load(self, content: bytes) -> None:
        try:
            document: dict[str, Any] = json.loads(content)
            if document["format"] != FORMAT_VERSION:
                raise StorageError(
                    ErrorCode.STORAGE_ERROR,
                    f"{self._path} has format {document['format']}; this broker reads {FORMAT_VERSION}",
                )
            self.cluster_id = str(document["cluster_id"])
            self._next_producer_id = self._block_end = int(document["producer_ids_from"])
            self._deleted = frozenset(bytes.fromhex(text) for text in document["deleted_topics"])
            for name, entry in document["topics"].items():
                self._topics[name] = _topic_record(name, entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                ErrorCode.STORAGE_ERROR,
                f"{self._path} is damaged ({error}); restore it from a copy",
            ) from None


def _topic_record(name: str, entry: dict[str, Any]) -> TopicRecord:
    """A topic as it stands in the file. Raises ValueError, KeyError or TypeError for what it cannot be."""
    topic_id, partitions = bytes.fromhex(entry["id"]), int(entry["partitions"])
    if len(topic_id) != 16 or not 1 <= partitions <= MAX_PARTITIONS:
        raise ValueError(
            f"topic {name!r} has {partitions} partitions and an id of {len(topic_id)} bytes"
        )
    configs: dict[str, str] = dict(entry["configs"])
    if not all(isinstance(text, str) for pair in configs.items() for text in pair):
        raise ValueError(f"a setting of topic {name!r} is no text")
    return TopicRecord(name, topic_id, partitions, configs)

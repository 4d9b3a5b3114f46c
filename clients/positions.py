"""Offsets by question: first, last, of a time, committed by a group; and committing them.

Each question goes to whoever can answer it and is asked again while that can help, until request_timeout_s.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from frieda.clients.dialer import backoff_s
from frieda.errors import BrokerError, ConfigError, ErrorCode, FriedaError
from frieda.model import TopicPartition
from frieda.wire.messages import (
    CommitOffsetsRequest,
    CommitOffsetsResponse,
    FetchOffsetsRequest,
    FetchOffsetsResponse,
    GroupPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    OffsetCommit,
    OffsetQuery,
)

if TYPE_CHECKING:
    from frieda.clients.connection import BrokerConnection
    from frieda.clients.network import Network

Result = TypeVar("Result")

MAX_PARTITIONS_PER_REQUEST = 1000


class Positions:
    """The offsets of one consumer's partitions, as the brokers know them."""

    def __init__(self, network: Network, group: str | None) -> None:
        self._network = network
        self._group = group
        # A group has one commit in flight, so that an older one never lands after a newer one.
        self._committing = asyncio.Lock()

    async def listed(self, queries: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Partition and time (or LATEST_TIMESTAMP, EARLIEST_TIMESTAMP) -> offset; -1: nothing that late.

        Raises BrokerError (no such topic or partition) or a TransportError.
        """
        return await self._until_deadline(lambda: self.listed_once(queries), queries)

    async def listed_once(self, queries: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The same, asked once."""
        network = self._network
        by_connection: dict[BrokerConnection, list[TopicPartition]] = {}
        for key in queries:
            connection = await network.connection_for(*key)
            by_connection.setdefault(connection, []).append(key)
        found: dict[TopicPartition, int] = {}
        for connection, keys in by_connection.items():
            for start in range(0, len(keys), MAX_PARTITIONS_PER_REQUEST):
                asked = keys[start : start + MAX_PARTITIONS_PER_REQUEST]
                request = ListOffsetsRequest(
                    tuple(
                        OffsetQuery(
                            network.metadata.require(key.topic).topic_id,
                            key.partition,
                            queries[key],
                        )
                        for key in asked
                    )
                )
                response: ListOffsetsResponse = await connection.call(request)
                for key, answer in zip(asked, response.partitions, strict=True):
                    _raise_for(answer.error_code, f"{key}: {answer.detail}")
                    found[key] = answer.offset
        return found

    async def committed(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int | None]:
        """What the group has committed; None where it has not. Raises ConfigError without a group."""
        group = self._require_group("committed")
        keys = list(partitions)
        found: dict[TopicPartition, int | None] = dict.fromkeys(keys)
        for start in range(0, len(keys), MAX_PARTITIONS_PER_REQUEST):
            asked = tuple(
                GroupPartition(*key) for key in keys[start : start + MAX_PARTITIONS_PER_REQUEST]
            )
            response: FetchOffsetsResponse = await self._network.call_any(
                FetchOffsetsRequest(group, asked)
            )
            for item in response.partitions:
                if item.offset >= 0:
                    found[TopicPartition(item.topic, item.partition)] = item.offset
        return found

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Keep these offsets under the group's name. Raises ConfigError without a group, BrokerError naming
        the partition that was refused, a TransportError. Cancellation may leave them kept or not."""
        group = self._require_group("commit")
        for key, offset in offsets.items():
            if offset < 0:
                raise ConfigError(f"commit: {key} = {offset}: an offset must not be negative")
        if not offsets:
            return
        commits = tuple(OffsetCommit(*key, offset, -1, "") for key, offset in offsets.items())
        async with self._committing:
            for start in range(0, len(commits), MAX_PARTITIONS_PER_REQUEST):
                part = commits[start : start + MAX_PARTITIONS_PER_REQUEST]
                await self._until_deadline(functools.partial(self._commit_once, group, part), ())

    async def _commit_once(self, group: str, commits: tuple[OffsetCommit, ...]) -> None:
        response: CommitOffsetsResponse = await self._network.call_any(
            CommitOffsetsRequest(group, "", -1, commits)
        )
        for item in response.partitions:
            _raise_for(item.error_code, f"{item.topic}-{item.partition}: {item.detail}")

    def _require_group(self, what: str) -> str:
        if self._group is None:
            raise ConfigError(f"{what}: this consumer has no group; give it one with group='...'")
        return self._group

    async def _until_deadline(
        self, ask: Callable[[], Awaitable[Result]], keys: Iterable[TopicPartition]
    ) -> Result:
        network = self._network
        topics = {key.topic for key in keys}
        deadline_ns = network.clock.monotonic_ns() + int(network.config.request_timeout_s * 1e9)
        attempt = 0
        while True:
            try:
                if topics and (attempt or any(network.metadata.topic(t) is None for t in topics)):
                    await network.refresh(topics)
                return await ask()
            except FriedaError as error:
                left_s = (deadline_ns - network.clock.monotonic_ns()) / 1e9
                pause_s = backoff_s(network.config.retry_backoff_s, attempt)
                # After a refresh the metadata is as new as it gets: what is not there is not there.
                missing = (
                    isinstance(error, BrokerError)
                    and error.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                )
                if not error.retriable or left_s <= pause_s or (missing and attempt > 0):
                    raise
                attempt += 1
                await asyncio.sleep(pause_s)


def _raise_for(error_code: int, detail: str) -> None:
    if error_code:
        raise broker_error(error_code, detail)


def broker_error(error_code: int, detail: str) -> BrokerError:
    """An error out of an answer; a number unknown to this client becomes UNKNOWN_SERVER_ERROR."""
    try:
        return BrokerError(ErrorCode(error_code), detail)
    except ValueError:
        return BrokerError(
            ErrorCode.UNKNOWN_SERVER_ERROR, f"{detail} (error {error_code}, unknown to this client)"
        )

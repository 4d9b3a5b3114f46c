"""Topics that cannot be and partitions that are not: over the protocol, through the clients, on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from frieda import Consumer, Producer
from frieda.broker.server import Server
from frieda.cli.exit_codes import ExitCode
from frieda.errors import BrokerError, ErrorCode, FriedaError
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.testing.conversation import (
    create_topic,
    fetch_of,
    fetch_values,
    produce,
    topic_id_of,
    unharmed,
)
from frieda.testing.raw_client import raw_client
from frieda.wire.messages import (
    AlterTopicsRequest,
    CommitOffsetsRequest,
    DeleteTopicsRequest,
    ListOffsetsRequest,
    OffsetCommit,
    OffsetQuery,
    TopicChange,
)

ILLEGAL = ["", ".", "..", "a/b", "/", "../evil", "a\\b", "a b", "a\0b", "a\nb", "ü", "x" * 250]
LEGAL = ["...", ".a", "-", "_a", "a-0", "x.deleted", "CON", "x" * 249]


@pytest.mark.parametrize("name", ILLEGAL)
async def test_an_illegal_topic_name_is_refused_and_makes_no_folder(
    server: Server, name: str
) -> None:
    data = Path(server.config.data)
    async with unharmed(server), raw_client(server.urls[0]) as client:
        before = sorted(data.parent.rglob("*"))
        for attempt in (create_topic(client, name), topic_id_of(client, name)):
            with pytest.raises(BrokerError) as caught:
                await attempt
            assert caught.value.code is ErrorCode.INVALID_TOPIC
            assert "topic name" in caught.value.detail
        for request in (
            DeleteTopicsRequest((name,)),
            AlterTopicsRequest((TopicChange(name, {}),)),
            CommitOffsetsRequest("g", "", -1, (OffsetCommit(name, 0, 1, -1, ""),)),
        ):
            (outcome,) = (await client.call(request))[0]
            assert outcome.error_code == ErrorCode.INVALID_TOPIC
        assert sorted(data.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["__committed_offsets", "__anything"])
async def test_a_name_of_the_brokers_own_is_refused(server: Server, name: str) -> None:
    async with unharmed(server), raw_client(server.urls[0]) as client:
        with pytest.raises(BrokerError, match="two underscores") as caught:
            await create_topic(client, name)
        assert caught.value.code is ErrorCode.INVALID_TOPIC


async def test_the_oddest_legal_names_live_through_a_restart_and_can_be_deleted(
    tmp_path: Path,
) -> None:
    async with running_server(tmp_path) as server, raw_client(server.urls[0]) as client:
        for name in LEGAL:
            await produce(client, await create_topic(client, name), name.encode())
    async with running_server(tmp_path) as server, raw_client(server.urls[0]) as client:
        for name in LEGAL:
            topic_id = await topic_id_of(client, name)
            assert await fetch_values(client, topic_id) == [name.encode()]
            (outcome,) = (await client.call(DeleteTopicsRequest((name,)))).topics
            assert outcome.error_code == 0, outcome.detail
            assert await create_topic(client, name) != topic_id


# --- partitions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partition", [-1, 2, 2**31 - 1, -(2**31)])
async def test_a_partition_that_does_not_exist_is_named_and_so_are_those_that_do(
    server: Server, partition: int
) -> None:
    async with unharmed(server), raw_client(server.urls[0]) as client:
        topic_id = await create_topic(client, "two", 2)
        with pytest.raises(BrokerError) as caught:
            await produce(client, topic_id, b"x", partition=partition)
        refusals = [(caught.value.code, caught.value.detail)]
        for request in (
            fetch_of(topic_id, partition=partition, wait_ms=60_000),
            ListOffsetsRequest((OffsetQuery(topic_id, partition, -1),)),
            CommitOffsetsRequest("g", "", -1, (OffsetCommit("two", partition, 1, -1, ""),)),
        ):
            (outcome,) = (await client.call(request)).partitions
            refusals.append((outcome.error_code, outcome.detail))
        for code, detail in refusals:
            assert code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            assert str(partition) in detail
            assert "two" in detail


async def test_the_clients_say_that_a_partition_does_not_exist(server: Server) -> None:
    async with raw_client(server.urls[0]) as client:
        await create_topic(client, "two", 2)
    url = server.urls[0]
    async with Producer(url, polling="event") as producer:
        with pytest.raises(FriedaError, match="partition"):
            await producer.send("two", b"x", partition=2)
        assert (await producer.send("two", b"x", partition=1)).offset == 0
    consumer = Consumer(url, polling="event", request_timeout_s=0.2)
    consumer.assign([("two", 2)])
    with pytest.raises(FriedaError, match="partitions 0 to 1, not 2"):
        async with consumer:
            await consumer.getone()


# --- the command line -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("data")) as running:
        yield running


def frieda(broker: BrokerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "frieda", *arguments],
        input="one line\n",
        capture_output=True,
        text=True,
        env=dict(os.environ) | {"FRIEDA_BOOTSTRAP": broker.url},
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["topic create", "topic delete", "produce", "consume"])
@pytest.mark.parametrize("name", ["../evil", ".."])
def test_a_command_with_an_illegal_topic_name_fails_in_one_sentence(
    broker: BrokerProcess, command: str, name: str
) -> None:
    done = frieda(broker, *command.split(), name)
    assert done.returncode in (ExitCode.REFUSED, ExitCode.USAGE, ExitCode.NOT_FOUND)
    assert "topic name" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (Path(broker.data).parent / "evil-0").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["produce", "one", "--partition", "7"],
        ["consume", "one", "--partition", "7", "--exit-at-end"],
    ],
)
def test_a_command_for_a_partition_that_does_not_exist_fails_in_one_sentence(
    broker: BrokerProcess, command: list[str]
) -> None:
    frieda(broker, "topic", "create", "one", "--if-not-exists")
    done = frieda(broker, *command)
    assert done.returncode == ExitCode.NOT_FOUND, done
    assert "7" in done.stderr
    assert "Traceback" not in done.stderr

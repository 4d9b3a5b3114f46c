"""Bytes that no client should send: answered, refused or the connection closed, and nobody else is touched."""

from __future__ import annotations

import asyncio
from struct import pack
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgpack
import pytest

from frieda.broker.server import Server
from frieda.errors import BrokerError, ErrorCode
from frieda.testing.batches import make_batch
from frieda.testing.conversation import create_topic, fetch_of, health_of, produce, unharmed
from frieda.testing.raw_client import RawClient, raw_client
from frieda.wire.envelope import encode_request
from frieda.wire.messages import (
    APIS,
    PROTOCOL_VERSION,
    ApiKey,
    CommitOffsetsRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DescribeTopicsRequest,
    FetchOffsetsRequest,
    GroupPartition,
    HealthRequest,
    HelloRequest,
    ListOffsetsRequest,
    MetadataRequest,
    NewTopic,
    OffsetCommit,
    OffsetQuery,
    ProduceRequest,
)
from frieda.wire.produce import encode_produce, encode_produced

HELLO = HelloRequest(PROTOCOL_VERSION, PROTOCOL_VERSION, "raw/1", "raw", 1 << 26)
NO_REQUEST = -1


def framed(message: bytes) -> bytes:
    return pack(">I", len(message)) + message


def with_header(header: object) -> bytes:
    packed = msgpack.packb(header)
    return pack(">I", len(packed)) + packed


async def last_word(client: RawClient) -> str:
    """What the broker says before it closes the connection, which must be the last it says."""
    async with asyncio.timeout(60):
        envelope = await client.next_answer()
        assert envelope.correlation_id == NO_REQUEST
        assert envelope.error_code == ErrorCode.INVALID_REQUEST
        assert await client.at_end()
    return str(envelope.fields[0])


# --- frames -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hello", [False, True], ids=["before Hello", "after Hello"])
@pytest.mark.parametrize(
    "size", [0, 17 * 2**20 + 1, 2**30, 2**31 - 1, 2**31, 2**32 - 1], ids=lambda size: f"{size:#x}"
)
async def test_a_frame_size_out_of_range_closes_the_connection_before_any_memory_is_taken(
    server: Server, size: int, hello: bool
) -> None:
    async with unharmed(server), raw_client(server.urls[0], hello=hello) as client:
        served = sum(each.hits for each in server.runtime.pool.statistics)
        client.write(pack(">I", size) + b"x" * 100)
        async with asyncio.timeout(60):
            assert await client.at_end()
        assert sum(each.hits for each in server.runtime.pool.statistics) == served


async def test_a_connection_cut_at_any_byte_leaves_nothing_behind(server: Server) -> None:
    address = urlsplit(server.urls[0])

    async def send_and_leave(data: bytes) -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with unharmed(server) as topic_id:
        batch = bytes(make_batch([b"never whole"]))
        produce = encode_produce(1, ProduceRequest(topic_id, 0, 1, 1000)) + batch
        conversation = framed(encode_request(ApiKey.HELLO, 0, 0, HELLO)) + framed(produce)
        await asyncio.gather(
            *(send_and_leave(conversation[:cut]) for cut in range(len(conversation)))
        )


async def test_a_large_message_cut_off_gives_its_buffer_back(server: Server) -> None:
    async with unharmed(server) as topic_id:
        for sent in (1 << 10, 1 << 18, (1 << 20) + 5):
            async with raw_client(server.urls[0]) as client:
                head = encode_produce(1, ProduceRequest(topic_id, 0, 1, 1000))
                client.write(pack(">I", 2 << 20) + head + b"x" * sent)


# --- headers ----------------------------------------------------------------------------------------------

PRODUCE = encode_produce(1, ProduceRequest(bytes(16), 0, 1, 1000))

NOT_A_REQUEST = {
    "a Produce cut short": PRODUCE[:-1],
    "a Produce with a negative correlation id": PRODUCE[:-8] + b"\xff" * 8,
    "a header of an unknown kind": b"\x03" + PRODUCE[1:],
    "an answer": encode_produced(0, 0, 0),
    "no room for a header size": b"\x00",
    "a header larger than the message": pack(">I", 1000) + b"\x93\x00\x00\x00",
    "a header above the limit": pack(">I", 5 << 20) + b"\x90" * (5 << 20),
    "a million empty maps": pack(">I", 1 << 20)
    + b"\xdd\x00\x0f\xff\xfb"
    + b"\x80" * ((1 << 20) - 5),
    "lengths that are nested": pack(">I", 73_000) + b"\xdc\xff\xff" * 1000 + bytes(70_000),
    "an empty header": pack(">I", 0),
    "not msgpack": pack(">I", 4) + b"\xc1\xc1\xc1\xc1",
    "msgpack that goes on behind its end": pack(">I", 5) + b"\x90abcd",
    "msgpack that ends too soon": pack(">I", 3) + b"\x9f\x00\x00",
    "an array of 4 billion": pack(">I", 5) + b"\xdd\xff\xff\xff\xff",
    "text of 4 billion bytes": pack(">I", 8) + b"\x93\x00\x00\xdb\xff\xff\xff\xff",
    "text that is not UTF-8": pack(">I", 6) + b"\x93\x00\x00\xa2\xed\xa0",
    "nested without end": pack(">I", 100_000) + b"\x91" * 100_000,
    "a map": with_header({"api": 0}),
    "a number": with_header(7),
    "no fields at all": with_header([]),
    "two fields": with_header([10000, 0]),
    "an API that is text": with_header(["0", 0, 1]),
    "an API that is true": with_header([True, 0, 1]),
    "a version that is nothing": with_header([0, None, 1]),
    "a negative correlation id": with_header([10001, 0, -1]),
    "a correlation id of 64 bits": with_header([10001, 0, 2**63]),
}


@pytest.mark.parametrize("hello", [False, True], ids=["before Hello", "after Hello"])
@pytest.mark.parametrize("message", NOT_A_REQUEST.values(), ids=NOT_A_REQUEST.keys())
async def test_a_message_that_is_no_request_gets_a_reason_and_the_end(
    server: Server, message: bytes, hello: bool
) -> None:
    async with unharmed(server), raw_client(server.urls[0], hello=hello) as client:
        client.send_message(message)
        assert len(await last_word(client)) > 20


async def test_what_follows_a_broken_message_is_not_worked_on(server: Server) -> None:
    async with unharmed(server) as topic_id, raw_client(server.urls[0]) as client:
        client.send_message(b"nonsense")
        client.send(ProduceRequest(topic_id, 0, 1, 1000), bytes(make_batch([b"too late"])))
        await last_word(client)


@pytest.mark.parametrize("api_key", [*sorted(set(APIS) - {ApiKey.HELLO}), 4711])
async def test_the_first_request_must_be_hello(server: Server, api_key: int) -> None:
    async with unharmed(server), raw_client(server.urls[0], hello=False) as client:
        client.send_message(encode_request(api_key, 0, 0, ()))
        assert f"must be Hello, not API {api_key}" in await last_word(client)


async def test_hello_of_a_protocol_nobody_speaks_is_refused_and_may_be_said_again(
    server: Server,
) -> None:
    async with raw_client(server.urls[0], hello=False) as client:
        with pytest.raises(BrokerError, match=r"versions 7 to 9, this broker 1") as caught:
            await client.call(HelloRequest(7, 9, "new/9", "new", 1 << 20))
        assert caught.value.code is ErrorCode.UNSUPPORTED_VERSION
        await client.call(HELLO)
        with pytest.raises(BrokerError, match="once, and first"):
            await client.call(HELLO)
        assert (await health_of(client)).status == "ok"


# --- one request ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api_key", "version", "words"),
    [
        (4711, 0, "no API has the number 4711"),
        (-1, 0, "no API has the number -1"),
        (2**64 - 1, 0, "no API has the number"),
        (ApiKey.PRODUCE, 1, "version 1 of PRODUCE"),
        (ApiKey.FETCH, -1, "version -1 of FETCH"),
        (ApiKey.HEALTH, 2**63, "speaks 0 to 0"),
    ],
)
async def test_an_unknown_api_or_version_is_refused_and_the_connection_lives(
    server: Server, api_key: int, version: int, words: str
) -> None:
    async with raw_client(server.urls[0]) as client:
        client.send_message(encode_request(api_key, version, 77, ()))
        envelope = await client.answer_to(77)
        assert envelope.error_code == ErrorCode.UNSUPPORTED_VERSION
        assert words in envelope.fields[0]
        assert (await health_of(client)).status == "ok"


@pytest.mark.parametrize("api_key", sorted(set(APIS) - {ApiKey.HELLO, ApiKey.HEALTH}))
@pytest.mark.parametrize("fields", [(), ({},), (b"x", "y", None, [], {}, 1.5, True, -1)])
async def test_fields_that_do_not_fit_are_refused_and_the_connection_lives(
    server: Server, api_key: int, fields: tuple[object, ...]
) -> None:
    async with unharmed(server), raw_client(server.urls[0]) as client:
        client.send_message(encode_request(api_key, 0, 77, fields))
        envelope = await client.answer_to(77)
        assert envelope.error_code == ErrorCode.INVALID_REQUEST
        assert "Request" in envelope.fields[0], "it says which field"
        assert (await health_of(client)).status == "ok"


def extreme(kind: Any, number: int) -> Any:
    """A value of a field's type in which every whole number is `number`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is int:
        return number
    if kind in (str, bytes, bool):
        return {str: "nowhere", bytes: b"?" * 16, bool: False}[kind]
    if origin is tuple:
        return (extreme(arguments[0], number),)
    if origin is dict:
        return {"retention.ms": str(number)}
    if hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return kind(*(extreme(hints[name], number) for name in kind._fields))
    return extreme(arguments[0], number)  # an optional field


@pytest.mark.parametrize("known_topic", [False, True])
@pytest.mark.parametrize("number", [-(2**63), -(2**31) - 1, -2, 2**31, 2**53, 2**63, 2**64 - 1])
async def test_numbers_beyond_all_reason_are_answered(
    server: Server, number: int, known_topic: bool
) -> None:
    async with unharmed(server) as topic_id, raw_client(server.urls[0]) as client:
        for api in APIS.values():
            if api.key == ApiKey.HELLO:
                continue
            request = extreme(api.request, number)
            message = encode_request(api.key, 0, 77, request)
            if known_topic:
                message = message.replace(b"?" * 16, topic_id)
            client.send_message(message)
            async with asyncio.timeout(60):
                await client.answer_to(77)
        assert (await health_of(client)).status == "ok"


TOO_MANY = 10_001


@pytest.mark.parametrize(
    "request_of_many",
    [
        MetadataRequest(("events",) * TOO_MANY, False),
        DescribeTopicsRequest(("events",) * TOO_MANY),
        DeleteTopicsRequest(("nowhere",) * TOO_MANY),
        CreateTopicsRequest((NewTopic("x/y", 1, 1, {}),) * TOO_MANY, False),
        ListOffsetsRequest((OffsetQuery(b"?" * 16, 0, -1),) * TOO_MANY),
        CommitOffsetsRequest("g", "", -1, (OffsetCommit("events", 0, 1, -1, ""),) * TOO_MANY),
        FetchOffsetsRequest("g", (GroupPartition("events", 0),) * TOO_MANY),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_a_request_about_more_things_than_are_allowed_is_refused(
    server: Server, request_of_many: Any
) -> None:
    async with raw_client(server.urls[0]) as client:
        await create_topic(client)
        with pytest.raises(BrokerError, match="at most 10000") as caught:
            await client.call(request_of_many)
        assert caught.value.code is ErrorCode.INVALID_REQUEST
        assert (await health_of(client)).status == "ok"


async def test_an_answer_that_is_more_than_the_client_takes_is_an_error_instead(
    server: Server,
) -> None:
    names = tuple(f"nowhere-{number}" for number in range(200))
    async with unharmed(server), raw_client(server.urls[0], hello=False) as client:
        await client.call(HELLO._replace(max_message_bytes=8192))
        topic_id = await create_topic(client)
        with pytest.raises(BrokerError, match="ask for less") as caught:
            await client.call(MetadataRequest(names, False))
        assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE
        for value in (b"fits", b"does not fit" * 1000):
            await produce(client, topic_id, value)
        answer = await client.answer_to(client.send(fetch_of(topic_id)))
        assert (answer.error_code, b"fits" in bytes(answer.body)) == (0, True)
        with pytest.raises(BrokerError, match="ask for less"):
            await client.call(fetch_of(topic_id, 1))


async def test_a_name_of_a_megabyte_is_refused_in_a_sentence(server: Server) -> None:
    async with raw_client(server.urls[0]) as client:
        for name in ("\x00" * 1_000_000, "a" * 1_000_000, "\U0010ffff" * 250_000):
            for request in (
                CreateTopicsRequest((NewTopic(name, 1, 1, {}),), False),
                CreateTopicsRequest((NewTopic("fine", 1, 1, {name: "1"}),), False),
                CreateTopicsRequest((NewTopic("fine", 1, 1, {"retention.ms": name}),), False),
                MetadataRequest((name,), True),
                DeleteTopicsRequest((name,)),
                CommitOffsetsRequest("g", "", -1, (OffsetCommit(name, 0, 1, -1, ""),)),
                CommitOffsetsRequest(name, "", -1, (OffsetCommit("events", 0, 1, -1, ""),)),
            ):
                async with asyncio.timeout(60):
                    answer = await client.answer_to(client.send(request))
                # Refused is either the whole request or, as the third field of its outcome, the one thing it is about.
                assert answer.error_code or answer.fields[-1][0][2]
                assert len(msgpack.packb(answer.fields)) < len(name.encode()) + 1000
        assert (await client.call(HealthRequest())).facts["faults"] == 0

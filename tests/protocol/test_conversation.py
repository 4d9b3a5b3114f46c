"""The two state machines talking to each other, and to peers that do not keep the rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import BrokerError, ErrorCode, LocalProtocolError, RemoteProtocolError
from frieda.protocol.client import ClientProtocol, ClientState
from frieda.protocol.server import (
    Incoming,
    Refusal,
    ServerProtocol,
    ServerState,
    answer_head,
)
from frieda.wire.envelope import encode_answer, encode_error, encode_request
from frieda.wire.messages import (
    APIS,
    PROTOCOL_VERSION,
    ApiKey,
    ApiRange,
    HealthRequest,
    HelloRequest,
    HelloResponse,
    ProduceRequest,
    ProduceResponse,
)
from frieda.wire.produce import encode_produce, encode_produced

PRODUCE = ProduceRequest(b"t" * 16, 0, 1, 1000)


def a_client() -> ClientProtocol:
    return ClientProtocol(client_id="test", software="test/0", max_message_bytes=1 << 20)


def hello_response(**changes: Any) -> HelloResponse:
    apis = tuple(ApiRange(api.key, api.min_version, api.max_version) for api in APIS.values())
    return HelloResponse(PROTOCOL_VERSION, "test/0", "c", 0, 1 << 20, 4, 64, apis)._replace(
        **changes
    )


def an_open_client(**changes: Any) -> ClientProtocol:
    client = a_client()
    outgoing = client.greet()
    client.receive(memoryview(encode_answer(outgoing.correlation_id, hello_response(**changes))))
    return client


def an_open_server() -> ServerProtocol:
    server = ServerProtocol()
    server.receive(memoryview(a_client().greet().head))
    return server


def request(api_key: int, fields: tuple[Any, ...] = (), version: int = 0) -> memoryview:
    return memoryview(encode_request(api_key, version, 5, fields))


def test_hello_then_a_produce_and_its_answer() -> None:
    client, server = a_client(), ServerProtocol()
    hello = server.receive(memoryview(client.greet().head))
    assert isinstance(hello, Incoming)
    assert isinstance(hello.request, HelloRequest)
    client.receive(memoryview(encode_answer(hello.correlation_id, hello_response())))
    assert client.state is ClientState.OPEN

    outgoing = client.request(PRODUCE)
    incoming = server.receive(memoryview(outgoing.head + b"batch"))
    assert isinstance(incoming, Incoming)
    assert incoming.request == PRODUCE
    assert bytes(incoming.body) == b"batch"

    answer = client.receive(memoryview(answer_head(incoming.correlation_id, ProduceResponse(7, 0))))
    assert answer is not None
    assert answer.response == ProduceResponse(7, 0)
    assert answer.error is None
    assert client.in_flight == {}


@given(st.permutations(range(4)))
def test_answers_may_come_in_any_order(order: list[int]) -> None:
    client = an_open_client()
    ids = [client.request(PRODUCE).correlation_id for _ in range(4)]
    for position in order:
        answer = client.receive(memoryview(encode_produced(ids[position], position, 0)))
        assert answer is not None
        assert answer.correlation_id == ids[position]
        assert answer.response.base_offset == position
    assert client.credit == 4


def test_an_error_answer_becomes_a_broker_error() -> None:
    client = an_open_client()
    outgoing = client.request(PRODUCE)
    answer = client.receive(
        memoryview(encode_error(outgoing.correlation_id, ErrorCode.DISK_FULL, "/data is full"))
    )
    assert answer is not None
    assert answer.error is not None
    assert answer.error.code is ErrorCode.DISK_FULL
    assert answer.error.retriable
    assert "/data is full" in str(answer.error)


def test_an_error_code_of_a_newer_broker_is_kept_in_words() -> None:
    client = an_open_client()
    outgoing = client.request(PRODUCE)
    answer = client.receive(memoryview(encode_error(outgoing.correlation_id, 31999, "new")))
    assert answer is not None
    assert answer.error is not None
    assert answer.error.code is ErrorCode.UNKNOWN_SERVER_ERROR
    assert "31999" in str(answer.error)


def test_requests_beyond_the_credit_are_not_made() -> None:
    client = an_open_client(max_in_flight=2)
    client.request(PRODUCE)
    client.request(PRODUCE)
    assert client.credit == 0
    with pytest.raises(LocalProtocolError, match="in flight"):
        client.request(PRODUCE)


def test_a_produce_without_acknowledgement_gives_its_credit_back() -> None:
    client = an_open_client(max_in_flight=1)
    outgoing = client.request(PRODUCE._replace(acks=0))
    client.forget(outgoing.correlation_id)
    assert client.credit == 1
    late = memoryview(encode_error(outgoing.correlation_id, ErrorCode.DISK_FULL, ""))
    assert client.receive(late) is None


def test_a_request_before_hello_is_refused_on_both_sides() -> None:
    with pytest.raises(LocalProtocolError):
        a_client().request(PRODUCE)
    for message in (
        request(ApiKey.PRODUCE, tuple(PRODUCE)),
        memoryview(encode_produce(5, PRODUCE)),
    ):
        with pytest.raises(RemoteProtocolError, match="must be Hello, not API 0"):
            ServerProtocol().receive(message)


def test_a_second_hello_is_refused_on_both_sides() -> None:
    client = an_open_client()
    with pytest.raises(LocalProtocolError):
        client.greet()
    refusal = an_open_server().receive(memoryview(a_client().greet().head))
    assert isinstance(refusal, Refusal)
    assert refusal.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (request(999), ErrorCode.UNSUPPORTED_VERSION),
        (request(ApiKey.PRODUCE, tuple(PRODUCE), version=99), ErrorCode.UNSUPPORTED_VERSION),
        (request(ApiKey.PRODUCE, tuple(PRODUCE), version=-1), ErrorCode.UNSUPPORTED_VERSION),
        (memoryview(encode_produce(5, PRODUCE, version=7)), ErrorCode.UNSUPPORTED_VERSION),
        (request(ApiKey.PRODUCE, tuple(PRODUCE)), ErrorCode.INVALID_REQUEST),
        (request(ApiKey.LIST_OFFSETS, ("no partitions",)), ErrorCode.INVALID_REQUEST),
        (request(ApiKey.LIST_OFFSETS, ()), ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_is_wrong_with_one_request_is_answered_and_the_connection_lives(
    message: memoryview, code: ErrorCode
) -> None:
    server = an_open_server()
    refusal = server.receive(message)
    assert isinstance(refusal, Refusal)
    assert (refusal.correlation_id, refusal.code) == (5, code)
    assert server.state is ServerState.OPEN
    assert isinstance(server.receive(request(ApiKey.HEALTH)), Incoming)


def test_a_client_of_another_protocol_version_is_told_which_is_spoken() -> None:
    server = ServerProtocol()
    hello = HelloRequest(PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 3, "future/9", "x", 1)
    refusal = server.receive(request(ApiKey.HELLO, tuple(hello)))
    assert isinstance(refusal, Refusal)
    assert refusal.code is ErrorCode.UNSUPPORTED_VERSION
    assert server.state is ServerState.GREETING


@pytest.mark.parametrize(
    "changes", [{"protocol_version": 9}, {"max_in_flight": 0}, {"max_message_bytes": 0}]
)
def test_a_hello_answer_that_cannot_be_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(RemoteProtocolError):
        an_open_client(**changes)


def test_an_api_that_the_broker_lacks_is_a_clear_error() -> None:
    client = an_open_client(apis=(ApiRange(ApiKey.PRODUCE, 0, 0), ApiRange(ApiKey.HEALTH, 5, 9)))
    client.request(PRODUCE)
    with pytest.raises(BrokerError, match="HEALTH") as caught:
        client.request(HealthRequest())
    assert caught.value.code is ErrorCode.UNSUPPORTED_VERSION


def test_an_answer_that_nobody_asked_for_breaks_the_connection() -> None:
    with pytest.raises(RemoteProtocolError, match="not in flight"):
        an_open_client().receive(memoryview(encode_answer(77, ())))
    with pytest.raises(RemoteProtocolError, match="not in flight"):
        an_open_client().receive(memoryview(encode_produced(77, 0, 0)))


def test_an_answer_that_does_not_fit_its_request_breaks_the_connection() -> None:
    client = an_open_client()
    health = client.request(HealthRequest(), "who asked").correlation_id
    produce = client.request(PRODUCE, "who produced").correlation_id
    for wrong in (
        encode_answer(health, ("x",)),
        encode_produced(health, 0, 0),
        encode_answer(produce, (7, 0)),
        encode_produced(produce, 7, 0)[:-1],
        encode_produced(produce, 7, 0) + b"x",
    ):
        with pytest.raises(RemoteProtocolError):
            client.receive(memoryview(wrong))
    assert [kept for _, kept in client.close()] == ["who asked", "who produced"], "still in flight"


def test_closing_gives_back_what_was_kept_with_the_requests_without_an_answer() -> None:
    client = an_open_client()
    for number in range(3):
        client.request(PRODUCE, number)
    assert [kept for _, kept in client.close()] == [0, 1, 2]
    assert client.close() == []
    with pytest.raises(LocalProtocolError):
        client.request(PRODUCE)


def test_a_server_that_is_closed_takes_nothing() -> None:
    server = an_open_server()
    server.close()
    with pytest.raises(RemoteProtocolError):
        server.receive(request(ApiKey.HEALTH))


@given(st.binary(max_size=100))
def test_garbage_is_refused_or_raises_remote_protocol_error(data: bytes) -> None:
    for server in (ServerProtocol(), an_open_server()):
        try:
            assert isinstance(server.receive(memoryview(data)), Incoming | Refusal)
        except RemoteProtocolError:
            continue
    for client in (a_client(), an_open_client()):
        with pytest.raises(RemoteProtocolError):
            client.receive(memoryview(data))

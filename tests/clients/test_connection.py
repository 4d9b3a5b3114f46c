"""One connection: answers to whom they belong, deadlines, credit, and an end that everyone hears of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic_ns
from typing import Any

import pytest

from frieda.clients.connection import MAX_WAITING_REQUESTS, BrokerConnection
from frieda.clients.network import Network
from frieda.config import ClientConfig
from frieda.errors import (
    BrokenError,
    BrokerError,
    ClosedError,
    ConnectError,
    ErrorCode,
    FriedaError,
    LocalProtocolError,
)
from frieda.protocol.client import Answer
from frieda.testing.fake_broker import FakeBroker
from frieda.wire.messages import (
    ApiKey,
    HealthRequest,
    HealthResponse,
    ProduceRequest,
    ProduceResponse,
)
from frieda.wire.produce import encode_produced, produce_prefix

URL = "memory://connection-test"


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with FakeBroker(URL, max_in_flight=4) as running:
        yield running


@pytest.fixture
async def network(broker: FakeBroker) -> AsyncIterator[Network]:
    network = Network(ClientConfig(bootstrap=URL, polling="event", max_frame_bytes=64 * 1024))
    network.start()
    yield network
    await network.close()


@pytest.fixture
async def connection(network: Network) -> BrokerConnection:
    return await network.any_connection()


ACKNOWLEDGED = produce_prefix(ProduceRequest(bytes(16), 0, 1, 1000))
UNACKNOWLEDGED = produce_prefix(ProduceRequest(bytes(16), 0, 0, 1000))


class Answers:
    """Keeps what `submit` and `produce` were answered."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def produced(self, subject: Any, base_offset: int, error: FriedaError | None) -> None:
        self.got.append((subject, base_offset, error))

    def __call__(self, answer: Answer | FriedaError, lease: Any) -> None:
        self.got.append(answer)


async def turns(count: int = 30) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_call_gets_the_response_to_its_request(connection: BrokerConnection) -> None:
    response = await connection.call(HealthRequest())
    assert isinstance(response, HealthResponse)
    assert response.status == "ok"


async def test_an_error_is_raised_to_who_asked(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    broker.fail_next(ApiKey.HEALTH, ErrorCode.BUSY)
    with pytest.raises(BrokerError, match="as the script says"):
        await connection.call(HealthRequest())
    await connection.call(HealthRequest())


async def test_answers_in_any_order_reach_their_requests(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    held = broker.hold(ApiKey.HEALTH)
    calls = [asyncio.create_task(connection.call(HealthRequest())) for _ in range(3)]
    await turns()
    for number, exchange in reversed(list(enumerate(held))):
        exchange.answer(HealthResponse(str(number), (), "", {}, {}))
    assert [response.status for response in await asyncio.gather(*calls)] == ["0", "1", "2"]


async def test_beyond_the_brokers_credit_requests_wait_and_keep_their_order(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    held = broker.hold(ApiKey.HEALTH)
    answers = Answers()
    for _ in range(10):
        connection.submit(HealthRequest(), answers)
    await turns()
    assert len(held) == 4
    assert connection.in_flight == 10
    broker.release(ApiKey.HEALTH)
    for exchange in list(held):
        exchange.proceed()
    await turns()
    assert len(answers.got) == 10
    assert connection.in_flight == 0


async def test_the_queue_for_credit_is_bounded(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    broker.hold(ApiKey.HEALTH)
    answers = Answers()
    for _ in range(4 + MAX_WAITING_REQUESTS):
        connection.submit(HealthRequest(), answers)
    with pytest.raises(BrokerError, match="wait for memory://connection-test already"):
        connection.submit(HealthRequest(), answers)
    assert answers.got == []
    connection.abort()
    assert len(answers.got) == 4 + MAX_WAITING_REQUESTS


async def test_a_request_without_an_answer_times_out_and_the_late_answer_is_dropped(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    held = broker.hold(ApiKey.HEALTH)
    late = asyncio.create_task(connection.call(HealthRequest(), timeout_s=0.02))
    await turns()
    broker.release(ApiKey.HEALTH)
    await connection.call(HealthRequest())
    with pytest.raises(BrokerError, match="did not answer in time") as caught:
        await late
    assert caught.value.code is ErrorCode.REQUEST_TIMED_OUT
    assert connection.abandoned == 1
    held[0].proceed()
    await connection.call(HealthRequest())
    assert connection.abandoned == 0


async def test_a_broker_that_says_nothing_at_all_is_taken_for_dead(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    await connection.call(HealthRequest())
    broker.hold(ApiKey.HEALTH)
    patient = asyncio.create_task(connection.call(HealthRequest(), timeout_s=60))
    for _ in range(2):  # the first sweep still counts what was heard before it
        with pytest.raises(FriedaError):
            await connection.call(HealthRequest(), timeout_s=0.01)
    with pytest.raises(BrokenError):
        await patient
    assert not connection.is_open


async def test_a_cancelled_call_leaves_only_an_answer_that_is_dropped(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    held = broker.hold(ApiKey.HEALTH)
    call = asyncio.create_task(connection.call(HealthRequest()))
    await turns()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    broker.release(ApiKey.HEALTH)
    held[0].proceed()
    await connection.call(HealthRequest())
    assert connection.in_flight == 0


async def test_a_lost_connection_answers_every_request_exactly_once(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    broker.hold(ApiKey.HEALTH)
    answers = Answers()
    for _ in range(7):
        connection.submit(HealthRequest(), answers)
    await turns()
    broker.cut_connections()
    await turns()
    assert [type(answer) for answer in answers.got] == [BrokenError] * 7
    assert not connection.is_open
    with pytest.raises(BrokenError, match="has ended"):
        connection.submit(HealthRequest(), answers)
    assert len(answers.got) == 7


async def test_closing_answers_what_is_in_flight_with_closed(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    broker.hold(ApiKey.HEALTH)
    answers = Answers()
    connection.submit(HealthRequest(), answers)
    await connection.close()
    await connection.close()
    assert [type(answer) for answer in answers.got] == [ClosedError]


async def test_a_produce_without_acks_is_answered_once_it_was_handed_over(
    connection: BrokerConnection,
) -> None:
    answers = Answers()
    for _ in range(100):
        connection.produce(UNACKNOWLEDGED, b"x", answers.produced, "a batch", monotonic_ns())
    assert answers.got == [("a batch", -1, None)] * 100
    # The broker's complaints about them are answers nobody waits for.
    await connection.call(HealthRequest())


async def test_produces_beyond_the_credit_wait_and_keep_their_order(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    held = broker.hold(ApiKey.PRODUCE)
    answers = Answers()
    for number in range(1, 11):
        connection.produce(ACKNOWLEDGED, b"x" * number, answers.produced, number, monotonic_ns())
    await turns()
    assert len(held) == 4
    assert connection.in_flight == 10
    while held:
        exchange = held.popleft()
        exchange.answer(ProduceResponse(100 + len(exchange.body), 0))
        await turns()
    assert answers.got == [(number, 100 + number, None) for number in range(1, 11)]
    assert connection.in_flight == 0


async def test_a_refused_produce_and_a_lost_one_tell_who_waits(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    broker.hold(ApiKey.PRODUCE)
    broker.fail_next(ApiKey.PRODUCE, ErrorCode.BUSY)
    answers = Answers()
    connection.produce(ACKNOWLEDGED, b"x", answers.produced, "refused", monotonic_ns())
    await turns()
    for number in range(6):
        connection.produce(ACKNOWLEDGED, b"x", answers.produced, number, monotonic_ns())
    await turns()
    broker.cut_connections()
    await turns()
    (subject, offset, error), *lost = answers.got
    assert (subject, offset, error.code) == ("refused", -1, ErrorCode.BUSY)
    assert [(subject, offset) for subject, offset, _ in lost] == [(n, -1) for n in range(6)]
    assert all(isinstance(error, BrokenError) for _, _, error in lost)
    with pytest.raises(BrokenError):
        connection.produce(ACKNOWLEDGED, b"x", answers.produced, "too late", monotonic_ns())


async def test_a_produce_without_an_answer_times_out_and_the_late_answer_is_dropped(
    broker: FakeBroker,
) -> None:
    network = Network(ClientConfig(bootstrap=URL, polling="event", request_timeout_s=0.05))
    network.start()
    connection = await network.any_connection()
    held = broker.hold(ApiKey.PRODUCE)
    answers = Answers()
    connection.produce(ACKNOWLEDGED, b"x", answers.produced, "late", monotonic_ns())
    await turns()
    await connection.call(HealthRequest())  # it is heard of, so it is slow and not dead
    while not answers.got:
        await connection.call(HealthRequest())
    ((subject, offset, error),) = answers.got
    assert (subject, offset, error.code) == ("late", -1, ErrorCode.REQUEST_TIMED_OUT)
    assert connection.abandoned == 1
    held[0].answer(ProduceResponse(7, 0))
    await connection.call(HealthRequest())
    assert connection.is_open
    assert (connection.abandoned, connection.in_flight, len(answers.got)) == (0, 0, 1)
    await network.close()


@pytest.mark.parametrize(
    "answer", [encode_produced(4711, 0, 0), encode_produced(2, 7, 0)[:-1], b"\x02"]
)
async def test_an_answer_to_produce_that_cannot_be_breaks_the_connection_and_is_told(
    broker: FakeBroker, connection: BrokerConnection, answer: bytes
) -> None:
    broker.handlers[ApiKey.PRODUCE] = lambda exchange: exchange.connection.send(answer)
    answers = Answers()
    connection.produce(ACKNOWLEDGED, b"x", answers.produced, "a batch", monotonic_ns())
    await turns()
    ((subject, offset, error),) = answers.got
    assert (subject, offset, type(error)) == ("a batch", -1, BrokenError)
    assert not connection.is_open


async def test_a_request_larger_than_a_frame_is_refused_and_the_connection_lives(
    connection: BrokerConnection,
) -> None:
    answers = Answers()
    with pytest.raises(LocalProtocolError):
        connection.produce(
            ACKNOWLEDGED, bytes(65 * 1024), answers.produced, "a batch", monotonic_ns()
        )
    assert answers.got == []
    assert connection.in_flight == 0
    await connection.call(HealthRequest())


async def test_a_broker_that_does_not_greet_is_given_up_in_time(broker: FakeBroker) -> None:
    broker.hold(ApiKey.HELLO)
    network = Network(ClientConfig(bootstrap=URL, polling="event", connect_timeout_s=0.02))
    network.start()
    with pytest.raises(ConnectError, match="nobody greeted within"):
        await network.any_connection()
    await network.close()


async def test_a_peer_that_talks_nonsense_breaks_the_connection(
    broker: FakeBroker, connection: BrokerConnection
) -> None:
    def nonsense(exchange: Any) -> None:
        exchange.connection.send(b"\x00\x00\x00\x01\xc1")

    broker.handlers[ApiKey.HEALTH] = nonsense
    with pytest.raises(BrokenError):
        await connection.call(HealthRequest())
    assert not connection.is_open

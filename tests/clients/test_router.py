"""transport="auto": the better way is taken when it really leads to the same broker, and never harms.

The shared memory of these tests is the in-process transport under another name, so that what fails can be chosen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from frieda import Admin, Consumer, Producer
from frieda.broker.handlers import metadata as metadata_handler
from frieda.broker.server import Server
from frieda.clients import dialer, router
from frieda.clock import ManualClock
from frieda.errors import ConfigError, ConnectError, FriedaError, MissingDependencyError
from frieda.testing.brokers import running_server
from frieda.testing.conversation import eventually
from frieda.transports import registry
from frieda.transports.base import Connection, Receiver, Transport
from frieda.transports.memory import MemoryTransport

TCP, SHM = "tcp://127.0.0.1:0", "shm:///broker"


class AsShm(MemoryTransport):
    """The in-process transport under the name of shared memory."""

    scheme = "shm"


class Broken(AsShm):
    """Cannot connect, by an error that no transport should raise."""

    async def connect(
        self,
        url: str,
        make_receiver: Callable[[Connection], Receiver],
        *,
        timeout_s: float = 10.0,
    ) -> Connection:
        raise RuntimeError("a fault of its own")


class Missing(AsShm):
    """Needs something that is not installed."""

    def __init__(self, *_: object) -> None:
        raise MissingDependencyError("shm needs something")


def use(monkeypatch: pytest.MonkeyPatch, transport: type[Transport]) -> None:
    name = f"{transport.__module__}:{transport.__name__}"
    monkeypatch.setitem(registry.BUILT_IN, "shm", name)


@pytest.fixture(autouse=True)
def in_process_shm(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, AsShm)
    monkeypatch.setattr(router, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(dialer, "BETTER_TIMEOUT_S", 60.0)


@asynccontextmanager
async def a_broker(data: Path, *listen: str, **settings: Any) -> AsyncIterator[Server]:
    async with running_server(data, listen=listen or (TCP, SHM), **settings) as server:
        async with Admin(server.urls[0], polling="event", transport="tcp") as admin:
            await admin.create_topic("t")
        yield server


@asynccontextmanager
async def a_producer(server: Server, **settings: Any) -> AsyncIterator[Producer]:
    values: dict[str, Any] = {"polling": "event", "acks": 1, "retry_backoff_s": 0.01} | settings
    async with Producer(server.urls[0], **values) as producer:
        yield producer


async def test_a_client_that_came_by_tcp_goes_on_by_shared_memory(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as server, a_producer(server) as producer:
        await producer.send("t", b"x")
        health = producer.health()
        assert health.transports == {"tcp": 1, "shm": 1}
        assert (health.fallbacks, health.fallback_reason) == (0, "")
        assert server.broker.connections["shm"] == 1


async def test_many_who_want_the_leader_at_once_share_one_attempt(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as server, a_producer(server) as producer:
        await asyncio.gather(*(producer.send("t", b"%d" % n) for n in range(50)))
        assert server.broker.connections == {"tcp": 1, "shm": 1}


async def test_the_named_transport_is_used_and_no_other(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as server:
        async with a_producer(server, transport="tcp") as producer:
            await producer.send("t", b"x")
            assert producer.health().transports == {"tcp": 1}
        async with a_producer(server, transport="shm") as producer:
            await producer.send("t", b"x")
            assert producer.health().transports == {"tcp": 1, "shm": 1}
    with pytest.raises(ConfigError, match="transport = 'carrier-pigeon': must be one of auto, "):
        Producer("tcp://127.0.0.1:1", transport="carrier-pigeon")


async def test_a_named_transport_that_the_broker_lacks_is_said_in_a_sentence(
    tmp_path: Path,
) -> None:
    async with a_broker(tmp_path, TCP) as server:
        with pytest.raises(FriedaError, match=r"transport = 'shm'.*does not listen there"):
            async with a_producer(server, transport="shm", delivery_timeout_s=0.3) as producer:
                await producer.send("t", b"x")


async def test_on_another_host_shared_memory_is_not_even_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_handler, "host_identity", lambda: "another-boot")
    async with a_broker(tmp_path) as server, a_producer(server) as producer:
        await producer.send("t", b"x")
        assert producer.health().transports == {"tcp": 1}
        assert producer.health().fallbacks == 0


async def test_a_path_that_leads_to_another_broker_is_left_alone(tmp_path: Path) -> None:
    async with (
        a_broker(tmp_path / "other", TCP, "shm:///same-path") as other,
        a_broker(tmp_path / "ours", TCP, advertise=("shm:///same-path",)) as server,
        a_producer(server) as producer,
    ):
        result = await producer.send("t", b"ours")
        assert result.offset == 0
        health = producer.health()
        assert health.transports == {"tcp": 1}
        assert health.fallbacks >= 1
        assert "somebody else than the broker we came for" in health.fallback_reason
        assert health.reconnects == 0
        for each, count in ((server, 1), (other, 0)):
            async with Admin(each.urls[0], polling="event") as admin:
                assert sum((await admin.end_offsets("t")).values()) == count


@pytest.mark.parametrize("transport", [Broken, Missing])
async def test_whatever_is_wrong_with_shared_memory_tcp_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: type[Transport]
) -> None:
    async with a_broker(tmp_path) as server:
        use(monkeypatch, transport)
        async with a_producer(server) as producer:
            await producer.send("t", b"x")
            health = producer.health()
            assert (health.status, health.transports) == ("ok", {"tcp": 1})
            assert health.fallbacks == 1
            assert health.fallback_reason in ("a fault of its own", "shm needs something")
            assert health.last_error == "", "nothing that the client needs is wrong"


async def test_a_listener_that_says_nothing_holds_up_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        def message_received(self, message: memoryview, lease: object) -> None: ...
        def sending_paused(self) -> None: ...
        def sending_resumed(self) -> None: ...
        def connection_lost(self, error: object) -> None: ...

    monkeypatch.setattr(dialer, "BETTER_TIMEOUT_S", 0.1)
    async with a_broker(tmp_path, TCP, advertise=("shm:///silent",)) as server:
        transport = AsShm(server.runtime)
        listener = await transport.listen("shm:///silent", lambda _: Silent())
        async with a_producer(server) as producer:
            async with asyncio.timeout(5):
                await producer.send("t", b"x")
            health = producer.health()
            assert health.transports == {"tcp": 1}
            assert "nobody greeted within 0.1 s" in health.fallback_reason
        await listener.close()


async def test_a_producer_moves_on_once_shared_memory_is_there(tmp_path: Path) -> None:
    async with a_broker(tmp_path, TCP, advertise=("shm:///later",)) as server:
        transport = AsShm(server.runtime)
        async with a_producer(server) as producer:
            await producer.send("t", b"by tcp")
            assert producer.health().fallbacks == 1
            listener = await transport.listen(
                "shm:///later", lambda connection: server._accept("shm", connection)
            )
            await eventually(lambda: producer.health().transports.get("shm"), "it tries again")
            offsets = [(await producer.send("t", b"%d" % n)).offset for n in range(20)]
            assert offsets == list(range(1, 21))
            assert producer.health().reconnects == 0
            await listener.close()


async def test_a_consumer_moves_on_too_and_misses_nothing(tmp_path: Path) -> None:
    async with a_broker(tmp_path, TCP, advertise=("shm:///later",)) as server:
        transport = AsShm(server.runtime)
        async with (
            a_producer(server, transport="tcp") as producer,
            Consumer(server.urls[0], "t", start="earliest", polling="event") as consumer,
        ):
            await producer.send("t", b"0")
            assert (await consumer.getone()).value == b"0"
            assert consumer.health().transports == {"tcp": 1}
            listener = await transport.listen(
                "shm:///later", lambda connection: server._accept("shm", connection)
            )
            await eventually(lambda: server.broker.connections["shm"] == 1, "it tries again")
            for n in range(1, 50):
                await producer.send("t", b"%d" % n)
            async with asyncio.timeout(60):
                assert [(await consumer.getone()).value for _ in range(49)] == [
                    b"%d" % n for n in range(1, 50)
                ]
            assert server.broker.counters.fetches > 0
            await listener.close()


async def test_after_the_broker_came_back_so_does_shared_memory(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as server:
        tcp = server.urls[0]
        async with a_producer(server, delivery_timeout_s=20.0) as producer:
            await producer.send("t", b"0")
            await server.stop()
            sending = producer.send_nowait("t", b"1")
            async with running_server(tmp_path, listen=(tcp, SHM)) as again:
                assert (await sending).offset == 1
                await eventually(
                    lambda: producer.health().transports == {"tcp": 1, "shm": 1}, "it is back"
                )
                assert (await producer.send("t", b"2")).offset == 2
                await eventually(lambda: again.broker.connections["shm"] == 1, "and in use")
            producer_health = producer.health()
        assert producer_health.reconnects >= 2


async def test_shared_memory_that_breaks_soon_is_left_alone_for_a_while_and_tried_again(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    async with a_broker(tmp_path) as server, a_producer(server, clock=clock) as producer:
        for n in range(4):
            assert (await producer.send("t", b"%d" % n)).offset == n
            assert producer.health().fallbacks == n
            await eventually(lambda: producer.health().transports.get("shm"), "it is in use")
            (connection,) = (each for each in producer._network._dialer.living if each.url == SHM)
            connection.abort()
            assert producer._network._router._may_try(SHM) is False
            clock.advance(router.LONGEST_PAUSE_S)
        assert producer.health().fallback_reason == f"{SHM}: the connection was lost"


async def test_a_client_that_is_closed_tries_nothing_more(tmp_path: Path) -> None:
    async with a_broker(tmp_path, TCP, advertise=("shm:///never",)) as server:
        async with a_producer(server) as producer:
            await producer.send("t", b"x")
        assert asyncio.all_tasks() - {asyncio.current_task()} <= server.broker._tasks
        with pytest.raises(FriedaError):
            await producer.send("t", b"x")


async def test_nothing_is_better_than_an_error_where_tcp_is_not_there_either() -> None:
    with pytest.raises(ConnectError, match=r"tcp://127\.0\.0\.1:1"):
        async with Producer("tcp://127.0.0.1:1", polling="event", connect_timeout_s=0.1):
            pass

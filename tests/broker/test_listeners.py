"""The addresses of one broker: opened together, told to clients, closed together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from frieda import Admin, Producer
from frieda.broker.listeners import Listeners, told_to_clients
from frieda.errors import AddressInUseError, ConfigError, ConnectError
from frieda.host import host_identity
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.testing.conversation import eventually
from frieda.testing.raw_client import raw_client
from frieda.testing.transport_pair import make_runtime
from frieda.transports.base import Connection, Listener, Receiver, Transport, TransportRuntime
from frieda.wire.messages import HelloRequest, HelloResponse, MetadataRequest


async def test_a_broker_is_the_same_at_every_one_of_its_addresses(tmp_path: Path) -> None:
    listen = ("tcp://127.0.0.1:0", "memory://both")
    async with running_server(tmp_path, listen=listen) as server:
        tcp, memory = server.urls
        assert tcp.startswith("tcp://127.0.0.1:")
        assert memory == "memory://both"
        async with Admin(tcp, polling="event") as admin:
            await admin.create_topic("t")
        async with Producer(memory, polling="event") as producer:
            await producer.send("t", b"by memory")
        async with Admin(memory, polling="event") as admin:
            assert sum((await admin.end_offsets("t")).values()) == 1


async def test_metadata_tells_every_address_and_the_host_and_hello_the_instance(
    tmp_path: Path,
) -> None:
    listen = ("tcp://127.0.0.1:0", "memory://told")
    async with running_server(tmp_path, listen=listen) as server:
        async with raw_client(server.urls[0], hello=False) as client:
            hello: HelloResponse = await client.call(HelloRequest(1, 1, "x/1", "x", 1 << 20))
            (entry,) = (await client.call(MetadataRequest(None, False))).brokers
        assert entry.listeners == server.urls
        assert entry.host == host_identity() != ""
        first_life = hello.instance
        assert len(first_life) == 32
    async with (
        running_server(tmp_path, listen=listen) as server,
        raw_client(server.urls[0], hello=False) as client,
    ):
        hello = await client.call(HelloRequest(1, 1, "x/1", "x", 1 << 20))
        assert hello.instance not in ("", first_life)


def test_an_advertised_address_stands_for_those_of_its_scheme_and_a_device_is_nobodys_business() -> (
    None
):
    listening = ("tcp://0.0.0.0:9500", "verbs://10.0.0.1:9501?device=mlx5_0&gid=3", "shm:///run/b")
    assert told_to_clients(listening, ()) == (
        "tcp://0.0.0.0:9500",
        "verbs://10.0.0.1:9501",
        "shm:///run/b",
    )
    assert told_to_clients(listening, ("tcp://a:1", "tcp://b:2")) == (
        "tcp://a:1",
        "tcp://b:2",
        "verbs://10.0.0.1:9501",
        "shm:///run/b",
    )


async def test_an_address_that_cannot_be_had_fails_the_start_and_gives_back_the_others(
    tmp_path: Path,
) -> None:
    async with running_server(tmp_path / "first", listen=("memory://taken",)):
        with pytest.raises(AddressInUseError, match="memory://taken"):
            async with running_server(
                tmp_path / "second", listen=("memory://free", "memory://taken")
            ):
                pass
        async with running_server(tmp_path / "second", listen=("memory://free",)) as server:
            assert server.urls == ("memory://free",)


async def test_no_address_at_all_and_an_unknown_scheme_are_said_in_a_sentence(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="listen is empty"):
        async with running_server(tmp_path, listen=()):
            pass
    with pytest.raises(ConfigError, match="no transport 'tpc'; did you mean 'tcp'"):
        async with running_server(tmp_path, listen=("tpc://127.0.0.1:0",)):
            pass


class ScriptedListener(Listener):
    def __init__(self, url: str, events: list[str]) -> None:
        self._url = url
        self._events = events

    @property
    def url(self) -> str:
        return self._url

    async def close(self) -> None:
        self._events.append(f"close {self._url}")


class ScriptedTransport(Transport):
    """Writes down what is asked of it; cannot listen where the address says so."""

    def __init__(self, runtime: TransportRuntime, events: list[str]) -> None:
        super().__init__(runtime)
        self._events = events

    async def connect(
        self,
        url: str,
        make_receiver: Callable[[Connection], Receiver],
        *,
        timeout_s: float = 10.0,
    ) -> Connection:
        raise ConnectError(url)

    async def listen(self, url: str, make_receiver: Callable[[Connection], Receiver]) -> Listener:
        self._events.append(f"listen {url}")
        return ScriptedListener(url, self._events)


async def test_each_scheme_has_one_transport_and_tcp_opens_last() -> None:
    events: list[str] = []

    def open_transport(url: str, runtime: TransportRuntime) -> Transport:
        events.append(f"transport for {url}")
        return ScriptedTransport(runtime, events)

    def accept(scheme: str, connection: Connection) -> Receiver:
        raise AssertionError("nobody connects")

    runtime = make_runtime()
    listeners = Listeners(open_transport)
    wanted = ("tcp://a:1", "shm:///one", "tcp://b:1", "shm:///two")
    await listeners.open(wanted, runtime, accept)
    assert events == [
        "transport for shm:///one",
        "listen shm:///one",
        "listen shm:///two",
        "transport for tcp://a:1",
        "listen tcp://a:1",
        "listen tcp://b:1",
    ]
    assert listeners.urls == ("tcp://a:1", "shm:///one", "tcp://b:1", "shm:///two")
    events.clear()
    await listeners.close()
    await listeners.close()
    assert sorted(events) == sorted(f"close {url}" for url in wanted)
    assert listeners.urls == ()
    runtime.pool.close()


async def test_health_counts_the_connections_of_each_transport_and_the_buffers(
    tmp_path: Path,
) -> None:
    listen = ("tcp://127.0.0.1:0", "memory://counted")
    async with running_server(tmp_path, listen=listen) as server:
        tcp, memory = server.urls
        async with Admin(memory, polling="event") as admin:
            async with raw_client(tcp), raw_client(tcp):
                health = await admin.broker_health()
            assert health.settings["listeners"] == f"{tcp} {memory}"
            assert health.facts["connections_tcp"] == 2
            assert health.facts["connections_memory"] == 1
            await admin.create_topic("t")
            async with Producer(memory, polling="event") as producer:
                await producer.send("t", b"x" * 200_000)
            connections = server.broker.connections
            await eventually(lambda: connections["tcp"] == 0, "the two are gone")
            facts = (await admin.broker_health()).facts
        assert facts["buffers_hits"] >= 1
        assert facts["buffers_high_water_262144"] >= 1
        assert facts["buffers_misses"] == facts["buffers_waits"] == facts["buffers_in_use"] == 0


def test_a_broker_process_listens_at_several_addresses_and_names_them(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, listen=("tcp://127.0.0.1:0", "tcp://[::1]:0")) as broker:
        first_life = broker.urls
        assert [url.rpartition(":")[0] for url in first_life] == ["tcp://127.0.0.1", "tcp://[::1]"]
        assert broker.stop() == (0, "")
        broker.start()
        assert broker.urls == first_life
        assert broker.stop() == (0, "")

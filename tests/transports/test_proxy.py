import asyncio

import pytest

from frieda.errors import BrokenError, TransportError
from frieda.testing.proxy import FaultProxy
from frieda.testing.transport_pair import Recorder, TransportPair, eventually, transport_pair, turns


async def through(pair: TransportPair, proxy: FaultProxy) -> tuple[Recorder, Recorder]:
    count = len(pair.accepted)
    await pair.client.connect(proxy.url, pair.make_client)
    await eventually(lambda: len(pair.accepted) > count, "accepted")
    return pair.connected[-1], pair.accepted[-1]


async def test_bytes_pass_both_ways_and_a_clean_end_stays_clean():
    async with transport_pair("tcp://127.0.0.1:0") as pair, FaultProxy(pair.listener.url) as proxy:
        client, server = await through(pair, proxy)
        big = bytes(range(256)) * 2000
        client.connection.send(big)
        server.connection.send(b"back")
        assert await server.received(1) == [big]
        assert await client.received(1) == [b"back"]
        await client.connection.close()
        assert await server.lost() is None
        await eventually(lambda: proxy.open_connections == 0, "the link is gone")


async def test_a_cut_breaks_the_connection_inside_a_message():
    async with transport_pair("tcp://127.0.0.1:0") as pair, FaultProxy(pair.listener.url) as proxy:
        proxy.cut_after_bytes = 1000
        client, server = await through(pair, proxy)
        client.connection.send(b"a" * 500)
        assert await server.received(1) == [b"a" * 500]
        client.connection.send(b"b" * 5000)
        assert isinstance(await server.lost(), BrokenError)
        assert isinstance(await client.lost(), TransportError)
        assert server.messages == [b"a" * 500]


async def test_a_stall_holds_the_bytes_and_resume_brings_them():
    async with transport_pair("tcp://127.0.0.1:0") as pair, FaultProxy(pair.listener.url) as proxy:
        client, server = await through(pair, proxy)
        proxy.stall()
        client.connection.send(b"held")
        await turns(100)
        assert server.messages == []
        proxy.resume()
        assert await server.received(1) == [b"held"]


async def test_a_delay_delays():
    async with transport_pair("tcp://127.0.0.1:0") as pair, FaultProxy(pair.listener.url) as proxy:
        client, server = await through(pair, proxy)
        proxy.delay_s = 0.05
        start = asyncio.get_running_loop().time()
        client.connection.send(b"late")
        await server.received(1)
        assert asyncio.get_running_loop().time() - start >= 0.045  # uvloop's timers count in ms


async def test_drop_resets_what_is_open_and_lets_new_connections_through():
    async with transport_pair("tcp://127.0.0.1:0") as pair, FaultProxy(pair.listener.url) as proxy:
        client, server = await through(pair, proxy)
        proxy.drop()
        assert isinstance(await client.lost(), BrokenError)
        assert isinstance(await server.lost(), BrokenError)
        client, server = await through(pair, proxy)
        client.connection.send(b"again")
        assert await server.received(1) == [b"again"]


async def test_a_stopped_proxy_comes_back_at_the_same_address():
    async with transport_pair("tcp://127.0.0.1:0") as pair, FaultProxy(pair.listener.url) as proxy:
        url = proxy.url
        await proxy.stop()
        with pytest.raises(TransportError):
            await pair.client.connect(url, pair.make_client)
        await proxy.start()
        assert proxy.url == url
        client, server = await through(pair, proxy)
        client.connection.send(b"here")
        assert await server.received(1) == [b"here"]


async def test_a_refusing_proxy_resets_new_connections():
    async with transport_pair("tcp://127.0.0.1:0") as pair, FaultProxy(pair.listener.url) as proxy:
        proxy.refuse = True
        await pair.client.connect(proxy.url, pair.make_client)
        assert isinstance(await pair.connected[-1].lost(), BrokenError)
        assert pair.accepted == []

import asyncio
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frieda.errors import BrokenError, ConnectError
from frieda.testing.effort import examples
from frieda.testing.transport_pair import eventually, transport_pair, turns
from frieda.transports.memory import MemoryFaults, MemoryTransport

numbers = count()


def pair(faults):
    return transport_pair(
        f"memory://faults-{next(numbers)}",
        open_with=lambda _, runtime: MemoryTransport(runtime, faults),
    )


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5, 13, 14, 15, 27])
async def test_a_cut_at_any_byte_delivers_whole_messages_only_and_breaks_both_ends(cut):
    async with pair(MemoryFaults(cut_after_bytes=cut)) as both:
        client, server = await both.connect()
        for _ in range(2):
            client.connection.send(b"0123456789")
        assert isinstance(await server.lost(), BrokenError)
        assert isinstance(await client.lost(), BrokenError)
        assert server.messages == [b"0123456789"] * (cut // 14)


async def test_a_clog_holds_everything_until_it_is_gone():
    faults = MemoryFaults()
    async with pair(faults) as both:
        client, server = await both.connect()
        faults.clogged = True
        client.connection.send(b"held")
        await turns()
        assert server.messages == []
        faults.unclog()
        assert await server.received(1) == [b"held"]


async def test_a_delay_delays():
    async with pair(MemoryFaults(delay_s=0.02)) as both:
        client, server = await both.connect()
        start = asyncio.get_running_loop().time()
        client.connection.send(b"late")
        await server.received(1)
        assert asyncio.get_running_loop().time() - start >= 0.015  # uvloop's timers count in ms


async def test_names_belong_to_one_event_loop():
    async with transport_pair("memory://only-here") as both:

        async def elsewhere():
            async with transport_pair("memory://only-here"):
                with pytest.raises(ConnectError):
                    await both.client.connect("memory://another", both.make_client)

        await asyncio.to_thread(asyncio.run, elsewhere())


@settings(max_examples=examples(25), deadline=None)
@given(
    st.lists(st.integers(1, 20_000), min_size=1, max_size=20),
    st.integers(1, 5000),
    st.integers(0, 99),
)
def test_messages_arrive_whole_however_the_pieces_fall(sizes, piece, seed):
    async def run():
        async with pair(MemoryFaults(seed=seed, largest_piece_bytes=piece)) as both:
            client, server = await both.connect()
            messages = [bytes([number]) * size for number, size in enumerate(sizes)]
            for message in messages:
                client.connection.send(message)
            assert await server.received(len(messages)) == messages
            await eventually(lambda: client.connection.queued_bytes == 0, "all taken")

    asyncio.run(run())

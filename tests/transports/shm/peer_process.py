"""The other process of the tests of sudden death: `peer_process.py ROLE STOP URL`.

ROLE is client or broker. STOP is the number of the handshake's step that is not taken (each side sends or
receives four messages), or `talk` (send small messages without end), `large` (send large ones) or `quiet`. Once it
is there it says so on stdout and waits to be killed.
"""

import asyncio
import sys

from frieda.testing.transport_pair import Recorder, make_runtime
from frieda.transports.rdma.link import Link
from frieda.transports.registry import open_transport


def stop_at(number):
    """The handshake goes no further than this step."""
    steps = iter(range(number))

    def counted(method):
        async def step(self, *arguments, **options):
            if next(steps, None) is None:
                print("here", flush=True)
                await asyncio.Event().wait()
            return await method(self, *arguments, **options)

        return step

    Link.send, Link.receive = counted(Link.send), counted(Link.receive)


async def send_for_ever(connection, size):
    said = False
    while True:
        if connection.queued_bytes < 1_000_000:
            connection.send(bytes(size))
        await asyncio.sleep(0)
        if not said:
            said = True
            print("here", flush=True)


async def main(role, stop, url):
    if stop.isdigit():
        stop_at(int(stop))
    transport = open_transport(url, make_runtime())
    connections = asyncio.Queue()

    def receiver(connection):
        connections.put_nowait(connection)
        return Recorder(connection, lambda recorder, *_: recorder.messages.clear())

    if role == "client":
        await transport.connect(url, receiver, timeout_s=1000)
    else:
        await transport.listen(url, receiver)
        print("listening", flush=True)
    connection = await connections.get()
    match stop:
        case "talk":
            await send_for_ever(connection, 100)
        case "large":
            await send_for_ever(connection, 900_000)
        case _:
            print("here", flush=True)
            await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))

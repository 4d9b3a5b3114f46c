"""A process at the far end of a verbs connection, to be killed: `peer.py URL send SIZE` or `peer.py URL receive`."""

import asyncio
import sys

from frieda.testing.transport_pair import Recorder, make_runtime
from frieda.transports.registry import open_transport


class Swallower(Recorder):
    def message_received(self, message, lease):
        pass


async def main(url: str, role: str, size: int = 0) -> None:
    transport = open_transport(url, make_runtime())
    connections = []

    def make(connection):
        connections.append(connection)
        return Swallower(connection)

    await transport.connect(url, make)
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    while True:
        if role == "send" and connections[0].queued_bytes < 4 * max(size, 1000):
            connections[0].send(message)
        await asyncio.sleep(0)


asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))

"""Thousands of connections come and go, and the process is as it was."""

import asyncio
import gc
import os

import pytest

from frieda.testing.transport_pair import Recorder, eventually, make_runtime, open_descriptors
from frieda.transports.shm.transport import ShmTransport

CONNECTIONS = 10_000
AT_ONCE = 20


def mappings():
    """How many mappings of shared memory this process has."""
    with open("/proc/self/maps") as file:
        return sum("frieda-shm" in line or "/dev/shm/" in line for line in file)


def address_space_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE") // 2**20


@pytest.mark.timeout(240)
async def test_ten_thousand_connections_leave_nothing_behind(tmp_path):
    runtime = make_runtime()
    transport = ShmTransport(runtime)
    url = f"shm://{tmp_path}/broker.sock"
    accepted = []

    def receiver(connection):
        accepted.append(Recorder(connection))
        return accepted[-1]

    def client(connection):
        clients.append(Recorder(connection))
        return clients[-1]

    async def come_and_go(ending):
        connection = await transport.connect(url, client)
        connection.send(b"here I am")
        if ending == 0:
            await connection.close()
        elif ending == 1:
            connection.abort()

    async def many(count):
        for _ in range(count // AT_ONCE):
            await asyncio.gather(*(come_and_go(number % 3) for number in range(AT_ONCE)))
            await eventually(lambda: len(accepted) == AT_ONCE, "all are accepted")
            for each in accepted:
                if each.connection.peer and not each.losses:
                    each.connection.abort()
            await eventually(lambda: all(each.losses for each in accepted + clients), "all ended")
            accepted.clear()
            clients.clear()

    clients = []
    listener = await transport.listen(url, receiver)
    await many(10 * AT_ONCE)  # what is made once
    gc.collect()
    before = open_descriptors(), mappings(), len(gc.get_objects())
    space_mib = address_space_mib()
    await many(CONNECTIONS)
    assert runtime.pool.in_use == 0
    garbage = gc.collect()
    after = open_descriptors(), mappings(), len(gc.get_objects())
    assert after[:2] == before[:2]
    assert abs(after[2] - before[2]) < 200
    assert address_space_mib() <= space_mib + 64  # a connection has 22 MiB
    assert garbage < CONNECTIONS // 10
    assert not listener._links._tasks
    await listener.close()
    runtime.engine.close()
    assert runtime.pool.close() == ()
    assert os.listdir(tmp_path) == []

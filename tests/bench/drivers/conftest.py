"""Every test of a driver runs on the event loop that the benchmarks run on."""

import uvloop


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}

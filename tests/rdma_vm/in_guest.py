"""A pytest plugin for the virtual machine, in place of every conftest.py: there each second costs twenty.

One event loop is enough for the conformance suite, no Hypothesis is loaded, and whole brokers listen by verbs.
"""

import pytest
import uvloop


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def process_listen():
    """Where a broker in a process of its own shall listen."""
    return "verbs://10.77.0.2:0"

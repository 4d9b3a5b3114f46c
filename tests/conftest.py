"""What holds for all tests."""

from __future__ import annotations

import itertools
import os
from typing import Final

import pytest
from hypothesis import settings

from frieda.testing.effort import examples
from frieda.transports.registry import known_schemes

# A noisy machine must not fail a test for being slow; pytest's own timeout ends one that hangs.
settings.register_profile("frieda", deadline=None, print_blob=True, max_examples=examples(100))
settings.load_profile("frieda")

LISTEN_VARIABLE: Final = "FRIEDA_TEST_LISTEN"
_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--listen",
        action="append",
        default=[],
        metavar="URL",
        help="Run the tests that go through a whole broker at this address instead of over tcp, memory and shm; "
        f"may be given several times ({LISTEN_VARIABLE}: with commas). verbs://10.0.0.1:0, for example.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`listen` is an address for a broker in the test's process, `process_listen` for one in another."""
    inherited = [url for url in os.environ.get(LISTEN_VARIABLE, "").split(",") if url]
    given = metafunc.config.getoption("--listen") or inherited
    schemes = ["tcp", "memory", *(scheme for scheme in ("shm",) if scheme in known_schemes())]
    for name in {"listen", "process_listen"} & set(metafunc.fixturenames):
        elsewhere = [scheme for scheme in schemes if scheme != "memory"]
        urls = given or (schemes if name == "listen" else elsewhere)
        ids = [url.partition("://")[0] for url in urls]
        metafunc.parametrize(name, urls, ids=ids, indirect=True)


def _address(wanted: str, folders: pytest.TempPathFactory) -> str:
    """A free address: of the scheme that is `wanted`, or what was given on the command line."""
    match wanted:
        case "tcp":
            return "tcp://127.0.0.1:0"
        case "memory":
            return f"memory://test-{next(_numbers)}"
        case "shm":
            return f"shm://{folders.mktemp('s')}/broker.sock"
        case url:
            return url


@pytest.fixture
def listen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where a broker in this process shall listen: the test runs once for each transport."""
    return _address(request.param, tmp_path_factory)


@pytest.fixture
def process_listen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where a broker in a process of its own shall listen: once for each transport that leads there."""
    return _address(request.param, tmp_path_factory)

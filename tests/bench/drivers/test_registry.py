"""Drivers and systems by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from frieda.bench.drivers.registry import DRIVERS, driver
from frieda.bench.systems.registry import SYSTEMS, system
from frieda.errors import ConfigError


@pytest.mark.parametrize("name", DRIVERS)
def test_every_driver_has_its_name_and_a_system(name: str) -> None:
    made = driver(name)
    assert made.name == name
    assert made.system in {"frieda", *SYSTEMS}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_its_name(name: str) -> None:
    assert system(name).name == name


def test_another_name_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="driver 'rabbit': must be one of frieda, confluent"):
        driver("rabbit")
    with pytest.raises(ConfigError, match="system 'rabbit': must be one of kafka, redis, nats"):
        system("rabbit")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys; import frieda.bench.drivers.registry, frieda.bench.systems.registry; "
        "print([name for name in ('hiredis', 'confluent_kafka', 'aiokafka', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_its_library_the_redis_driver_says_how_to_get_it() -> None:
    code = (
        "import asyncio, sys; sys.modules['hiredis'] = None\n"
        "import importlib.util; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'hiredis' else find(name, *rest)\n"
        "from frieda.bench.drivers.registry import driver\n"
        "print(driver('redis').missing())\n"
        "try: asyncio.run(driver('redis').make_topic('redis://127.0.0.1:1', 't'))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sentence = "hiredis is not installed: pip install 'frieda[peers]'"
    assert done.stdout == f"{sentence}\nMissingDependencyError {sentence}\n"

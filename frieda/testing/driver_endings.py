"""What a producer does when its system dies in the middle of the work; a test class for each driver inherits it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from frieda.bench.drivers.base import ProducerOptions
from frieda.bench.drivers.registry import driver as driver_of
from frieda.errors import DeliveryTimeoutError, FriedaError, TransportError
from frieda.testing.driver_probes import Told


class EndedSystemConformance:
    """Inherit it beside DriverConformance, with `driver_name` and `start`."""

    driver_name: str

    def start(self, folder: Path) -> contextlib.AbstractContextManager[Any]:
        """The system of its own that the test kills."""
        raise NotImplementedError

    def kill(self, running: Any) -> None:
        """End all processes of the system at once."""
        running.process.kill()

    async def test_a_system_that_dies_fails_what_is_under_way_and_what_comes_later(
        self, tmp_path: Path
    ) -> None:
        driver, told = driver_of(self.driver_name), Told()
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(self.start(tmp_path))
            await driver.make_topic(running.address, "topic")
            options = ProducerOptions(
                address=running.address, topic="topic", delivery_timeout_s=3.0
            )
            producer = driver.producer(options)
            await producer.start()
            try:
                assert producer.submit(b"value", None, told.done)
                await told.all_of(1)
                assert told.errors == []
                self.kill(running)
                assert producer.submit(b"value", None, told.done)
                await producer.submit_many([b"value"] * 5, told.done)
                await told.all_of(7)
                assert producer.submit(b"value", None, told.done)
                await producer.submit_many([b"value"] * 2, told.done)
                await told.all_of(10)
            finally:
                await producer.close()
            with pytest.raises(FriedaError):
                running.require_alive()
        assert len(told.calls) >= 3
        for error in told.errors:
            assert isinstance(error, DeliveryTimeoutError | TransportError)
        assert sum(count for count, _, error in told.calls if error is not None) == 9

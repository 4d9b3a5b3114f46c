"""A broker process on a throw-away folder, for the demo and the benchmarks; neither outlives the context."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from frieda.bench.systems.processes import socket_folder
from frieda.errors import FriedaError
from frieda.testing.brokers import BrokerProcess

SOCKET_FILE: Final = "broker.sock"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def own_broker(
    polling: str, flush: str = "never", *flags: str, transport: str = "tcp"
) -> Iterator[BrokerProcess]:
    """A fresh broker at a free address of `transport`, tcp or shm, and no other.

    Raises FriedaError when it cannot start, or has ended by itself when the context does.

    When the context is left by an exception the broker is killed, else it is stopped in order. Its folder is
    removed in either case.
    """
    with _throw_away_folder() as folder, socket_folder(Path(folder), SOCKET_FILE) as sockets:
        listen = (
            f"shm://{sockets}/{SOCKET_FILE}" if transport == "shm" else f"{transport}://127.0.0.1:0"
        )
        process = BrokerProcess(
            f"{folder}/data", "--polling", polling, "--flush", flush, *flags, listen=listen
        )
        try:
            _start(process)
            try:
                yield process
            except FriedaError as error:
                require_alive(process, error)
                raise
            require_alive(process)
            _stop(process)
        finally:
            with _uninterrupted():
                process.kill()


def start_again(process: BrokerProcess, *, kill: bool) -> None:
    """End the broker, in order or by SIGKILL, and start it at the same address. Raises FriedaError."""
    require_alive(process)
    if kill:
        process.kill()
    else:
        _stop(process)
    _start(process)


def require_alive(process: BrokerProcess, cause: BaseException | None = None) -> None:
    """Raise FriedaError when the broker has ended by itself or was killed."""
    if process.ended:
        raise FriedaError("the broker process ended in the middle of the work") from cause


def _start(process: BrokerProcess) -> None:
    try:
        process.start()
    except RuntimeError as error:
        raise FriedaError(str(error).strip()) from None


def _stop(process: BrokerProcess) -> None:
    try:
        code, errors = process.stop()
    except subprocess.TimeoutExpired as error:
        raise FriedaError(f"the broker did not stop within {error.timeout:g} s") from None
    if code != 0:
        raise FriedaError(f"the broker ended with exit code {code}: {errors.strip()}")


@contextlib.contextmanager
def _throw_away_folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="frieda-broker-")
    try:
        yield folder
    finally:
        with _uninterrupted():
            shutil.rmtree(folder)


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: the work is given up and everything is tidied. Main thread only."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C does not stop the tidying, which is short."""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)

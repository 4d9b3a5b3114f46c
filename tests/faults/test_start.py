"""A broker that cannot start says why in one sentence, with the exit code for it, and harms nothing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frieda import sync
from frieda.cli.exit_codes import ExitCode
from frieda.errors import StorageError
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.testing.conversation import create_topic, fetch_values, produce, topic_id_of
from frieda.testing.raw_client import raw_client

# Root may do everything to every file. Without these two capabilities (linux/capability.h: CAP_DAC_OVERRIDE,
# CAP_DAC_READ_SEARCH) even root is an owner like any other; PR_CAPBSET_DROP is 24.
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):
        if libc.prctl(24, capability, 0, 0, 0):
            sys.exit(f"cannot drop a capability: {os.strerror(ctypes.get_errno())}")
os.execv(sys.executable, [sys.executable, "-m", "frieda", *sys.argv[1:]])
"""


def start(data: Path | str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run `frieda broker`, which must not come up."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FRIEDA_")}
    return subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT_PRIVILEGES,
            "broker",
            "--data",
            str(data),
            "--listen",
            "tcp://127.0.0.1:0",
            "--log-level",
            "warning",
            *flags,
        ],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def sentence_of(done: subprocess.CompletedProcess[str], code: ExitCode) -> str:
    """The one sentence that a broker which did not come up has said."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("frieda: ")
    return done.stderr


@pytest.fixture(scope="module")
def closed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that a broker has used and closed."""
    data = tmp_path_factory.mktemp("used") / "data"

    async def use() -> None:
        async with running_server(data) as server, raw_client(server.urls[0]) as client:
            await produce(client, await create_topic(client), b"stored")

    asyncio.run(use())
    return data


@pytest.fixture
def used(tmp_path: Path, closed_folder: Path) -> Iterator[Path]:
    """The same, for a test of its own; after which a broker must find in it what it held."""
    data = tmp_path / "data"
    shutil.copytree(closed_folder, data)
    yield data
    for path in [data, *data.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)

    async def read() -> list[bytes | None]:
        async with running_server(data) as server, raw_client(server.urls[0]) as client:
            return await fetch_values(client, await topic_id_of(client, "events"))

    assert asyncio.run(read()) == [b"stored"], "what could not be opened was harmed"


def test_a_second_broker_on_the_same_folder_names_the_first_and_the_folder(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data") as first:
        sentence = sentence_of(start(tmp_path / "data"), ExitCode.STORAGE)
        assert re.search(rf"\b{first.pid}\b", sentence)
        assert str(tmp_path / "data") in sentence
        with sync.Admin(first.url) as admin:
            assert admin.broker_health().status == "ok"
        first.kill()
        first.start()  # a lock dies with its process


def test_a_port_in_use_is_named_and_the_folder_is_closed_again(used: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        sentence = sentence_of(start(used, "--listen", url), ExitCode.USAGE)
        assert url in sentence
        assert (used / ".clean-shutdown").exists()


def test_an_address_that_is_not_ours_is_named(tmp_path: Path) -> None:
    for url in ("tcp://192.0.2.1:9500", "tcp://nowhere.invalid:9500", "pigeon://roof"):
        done = start(tmp_path / "data", "--listen", url)
        assert done.returncode != 0
        assert url.split("//")[1].split(":")[0] in done.stderr or "pigeon" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", [0o000, 0o111, 0o555])
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, mode: int) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    sentence = sentence_of(start(data), ExitCode.STORAGE)
    data.chmod(0o755)
    assert f"{data} cannot be used: Permission denied" in sentence
    assert list(data.iterdir()) == []


def test_a_folder_that_may_not_be_made_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    sentence = sentence_of(start(tmp_path / "data"), ExitCode.STORAGE)
    tmp_path.chmod(0o755)
    assert str(tmp_path / "data") in sentence


def unreadable(path: Path) -> None:
    path.chmod(0)


def read_only(path: Path) -> None:
    path.chmod(0o555)


@pytest.mark.parametrize(
    ("spoil", "which"),
    [
        (unreadable, "."),
        (read_only, "."),
        (unreadable, "meta.json"),
        (unreadable, "metadata.json"),
        (unreadable, "events-0"),
        (unreadable, "events-0/partition.metadata"),
        (unreadable, "events-0/00000000000000000000.log"),
        (unreadable, "events-0/log-checkpoint"),
    ],
)
def test_what_may_not_be_read_in_a_used_folder_is_named_and_nothing_is_harmed(
    used: Path, spoil: Callable[[Path], None], which: str
) -> None:
    spoil(used / which)
    sentence = sentence_of(start(used), ExitCode.STORAGE)
    assert str(used / which) in sentence
    assert "Permission denied" in sentence


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: mounting a read-only disk needs root")
def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], check=True)
    try:
        sentence = sentence_of(start(tmp_path), ExitCode.STORAGE)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert f"{tmp_path} cannot be used: Read-only file system" in sentence


@pytest.mark.parametrize("path", ["file", "file/data"])
def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("mine")
    sentence = sentence_of(start(tmp_path / path), ExitCode.STORAGE)
    assert f"{tmp_path / path} cannot be used" in sentence
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["meta.json", "metadata.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"format": 1}', '{"format": 99}'])
def test_a_damaged_description_of_the_folder_is_named_and_not_written_over(
    used: Path, name: str, content: str
) -> None:
    sound = (used / name).read_bytes()
    (used / name).write_text(content)

    async def start_here() -> None:
        async with running_server(used):
            raise AssertionError("it came up")

    with pytest.raises(StorageError) as caught:
        asyncio.run(start_here())
    assert str(used / name) in str(caught.value)
    assert (used / name).read_text() == content
    (used / name).write_bytes(sound)


def test_the_folder_of_another_broker_is_not_taken(used: Path) -> None:
    sentence = sentence_of(start(used, "--id", "7"), ExitCode.STORAGE)
    assert "belongs to broker 0, not to 7" in sentence


def test_logs_without_the_list_of_topics_are_not_taken_for_an_empty_folder(used: Path) -> None:
    aside = (used / "metadata.json").rename(used.parent / "aside")
    sentence = sentence_of(start(used), ExitCode.STORAGE)
    assert "metadata.json is missing" in sentence
    aside.rename(used / "metadata.json")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("flsh = 'batch'", ["flsh", "did you mean 'flush'"]),
        (
            "[topic]\nretention_msec = 5",
            ["topic.retention_msec", "did you mean 'topic.retention_ms'"],
        ),
        ("flush = 'sometimes'", ["flush", "sometimes", "never, interval, batch"]),
        ("max_frame_bytes = 5", ["max_frame_bytes", "from 65536"]),
        ("flush = ", ["not valid TOML"]),
    ],
)
def test_a_mistake_in_the_configuration_file_is_named_with_what_was_meant(
    tmp_path: Path, toml: str, words: list[str]
) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(toml)
    sentence = sentence_of(start(tmp_path / "data", "--config", str(file)), ExitCode.USAGE)
    assert str(file) in sentence
    for word in words:
        assert word in sentence
    assert not (tmp_path / "data").exists()

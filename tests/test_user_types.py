"""A user's own code passes mypy --strict against the installed package, and its mistakes do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """
import asyncio
from frieda import Admin, Consumer, Producer, Record, RecordMetadata
from frieda.sync import Producer as SyncProducer

async def main() -> None:
    async with Admin("tcp://127.0.0.1:9500") as admin:
        await admin.create_topic("events", partitions=4)
    async with Producer("tcp://127.0.0.1:9500", acks=1, linger_ms=0.5) as producer:
        metadata: RecordMetadata = await producer.send("events", b"value", b"key")
        future: asyncio.Future[RecordMetadata] = producer.send_nowait("events", b"value")
        print(metadata.offset, (await future).partition)
    async with Consumer("tcp://127.0.0.1:9500", "events", group="g", start="earliest") as consumer:
        async for record in consumer:
            kept: Record = record
            value: bytes | None = kept.value
            print(value)

with SyncProducer() as sync_producer:
    print(sync_producer.send("events", b"value").offset)
asyncio.run(main())
"""

BAD = """
from frieda import Producer

Producer("tcp://127.0.0.1:9500", ack=1)
Producer("tcp://127.0.0.1:9500", linger_ms="soon")
"""


def mypy(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    (folder / "user_code.py").write_text(source)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--follow-imports=silent",
            "--config-file=",
            "user_code.py",
        ],
        cwd=folder,
        # mypy does not follow the import hook of an editable install.
        env=os.environ | {"MYPYPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(300)
def test_code_that_uses_every_client_is_typed(tmp_path: Path) -> None:
    result = mypy(tmp_path, GOOD)
    assert result.returncode == 0, result.stdout


@pytest.mark.timeout(300)
def test_an_unknown_setting_and_a_wrong_value_are_found(tmp_path: Path) -> None:
    result = mypy(tmp_path, BAD)
    assert "user_code.py:4" in result.stdout
    assert "user_code.py:5" in result.stdout

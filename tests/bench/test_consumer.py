"""The consumer benchmark: it counts what it reads, and says when there is too little."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from frieda.bench.consumer import (
    HEADING,
    ConsumerProgress,
    ConsumerSettings,
    as_json,
    progress_line,
    run_consumer,
    summary_lines,
)
from frieda.bench.producer import ensure_topic
from frieda.cli.main import run
from frieda.clients.producer import Producer
from frieda.errors import ConfigError, FriedaError
from frieda.testing.brokers import BrokerProcess

SIZES = range(1, 1001)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker with a topic "sizes" of 1000 records that are 1 to 1000 bytes long, over three partitions."""
    folder: Path = tmp_path_factory.mktemp("bench") / "data"
    with BrokerProcess(folder, "--polling", "event") as process:
        asyncio.run(fill(process.url))
        yield process
        code, errors = process.stop()
        assert (code, errors) == (0, "")


async def fill(url: str) -> None:
    await ensure_topic(url, "sizes", 3)
    await ensure_topic(url, "empty", 1)
    await ensure_topic(url, "hollow", 1)
    async with Producer(url, polling="event") as producer:
        for size in SIZES:
            producer.send_nowait("sizes", bytes(size), b"%d" % size)
        for _ in range(10):
            await producer.send("hollow", None, b"key")
        await producer.flush()


def settings(broker: BrokerProcess, topic: str = "sizes", **more: object) -> ConsumerSettings:
    values = {"polling": "event", "timeout_s": 30.0} | more
    return ConsumerSettings(topic=topic, bootstrap=broker.url, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("iterate", [False, True])
def test_it_reads_all_that_the_topic_holds(broker: BrokerProcess, iterate: bool) -> None:
    result = run_consumer(settings(broker, iterate=iterate))
    assert (result.records, result.size_bytes) == (1000, sum(SIZES))
    assert 0 < result.setup_s < result.elapsed_s
    assert result.settings["call"] == ("async for" if iterate else "getmany")
    assert result.settings["partitions"] == 3
    assert result.settings["broker_polling"] == "event"


@pytest.mark.parametrize("iterate", [False, True])
def test_it_reads_exactly_as_many_as_were_asked_for(broker: BrokerProcess, iterate: bool) -> None:
    assert run_consumer(settings(broker, records=123, iterate=iterate)).records == 123


@pytest.mark.parametrize("iterate", [False, True])
def test_records_without_a_value_count_as_empty(broker: BrokerProcess, iterate: bool) -> None:
    result = run_consumer(settings(broker, "hollow", iterate=iterate))
    assert (result.records, result.size_bytes) == (10, 0)


def test_too_few_records_are_an_error_that_says_how_many(broker: BrokerProcess) -> None:
    for timeout_s in (1.5, 15, 60):  # the first record may take a slow machine longer than that
        with pytest.raises(FriedaError, match=rf"no record for {timeout_s:g} s after .*") as caught:
            run_consumer(settings(broker, records=1001, timeout_s=timeout_s))
        if "after 1000 of 1001" in str(caught.value):
            break
    assert re.search(r"after 1000 of 1001; .*held 1000", str(caught.value))


def test_an_empty_topic_is_an_error_and_not_a_wait(broker: BrokerProcess) -> None:
    with pytest.raises(FriedaError, match="topic 'empty' is empty"):
        run_consumer(settings(broker, "empty"))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="records = 0"):
        ConsumerSettings(topic="t", records=0)
    with pytest.raises(ConfigError, match="timeout_s = 0"):
        ConsumerSettings(topic="t", timeout_s=0)


def test_the_lines_have_a_value_for_each_name_of_the_heading(broker: BrokerProcess) -> None:
    result = run_consumer(settings(broker))
    heading, values, shown = summary_lines(result)
    assert heading == HEADING
    by_name = dict(zip(heading.split(", "), values.split(", "), strict=True))
    assert by_name["data.consumed.in.nMsg"] == "1000"
    assert float(by_name["data.consumed.in.MB"]) == pytest.approx(sum(SIZES) / 2**20, abs=1e-4)
    assert float(by_name["nMsg.sec"]) < float(by_name["fetch.nMsg.sec"])
    assert "flush=never" in shown
    assert json.loads(json.dumps(as_json(result)))["latency_us"]["p50"] is None


def test_a_window_of_progress_is_one_line() -> None:
    line = progress_line(ConsumerProgress(records=50, elapsed_s=2.0))
    assert line == "50 records read, 25.0 records/sec."


def test_the_command_fills_a_topic_of_its_own_broker_and_reads_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    json_file = tmp_path / "result.json"
    arguments = ["--topic", "t", "--fill", "3000", "--record-size", "50", "--polling", "event"]
    assert run(["bench", "consumer", "--own-broker", *arguments, "--json", str(json_file)]) == 0
    out, err = capfd.readouterr()
    assert "filled with 3000 records of 50 bytes" in err
    assert ", 3000, " in out
    assert json.loads(json_file.read_text())["records"] == 3000
    assert list(tmp_path.iterdir()) == [json_file]


def test_a_broker_of_its_own_must_be_filled(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "consumer", "--own-broker", "--topic", "t"]) == 2
    assert "give --fill N too" in capsys.readouterr().err

"""topic, produce, consume, health and completion as a user runs them: processes against a broker process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frieda.cli.exit_codes import ExitCode
from frieda.testing.brokers import BrokerProcess

Run = Callable[..., subprocess.CompletedProcess[bytes]]
NOT_TEXT = bytes(range(256)) * 300 + b"\r\n\n\xff\xfe no newline at the end"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("data")) as broker:
        yield broker


def environment_for(url: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FRIEDA_")}
    return kept | {"FRIEDA_BOOTSTRAP": url}


@pytest.fixture
def frieda(broker: BrokerProcess) -> Run:
    """Runs `frieda ...` to its end."""

    def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "frieda", *arguments],
            input=stdin,
            capture_output=True,
            env=environment_for(broker.url),
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def topic(frieda: Run, request: pytest.FixtureRequest) -> str:
    """A topic of the test's own, with one partition."""
    name = request.node.name.replace("[", "-").replace("]", "")[:200]
    assert frieda("topic", "create", name).returncode == 0
    return name


def started(broker: BrokerProcess, *arguments: str, **streams: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "frieda", *arguments],
        env=environment_for(broker.url),
        stderr=subprocess.PIPE,
        **streams,
    )


# --- topic ------------------------------------------------------------------------------------------------


def test_a_topic_is_made_shown_changed_and_deleted(frieda: Run) -> None:
    made = frieda("topic", "create", "life", "--partitions", "3", "--config", "retention.ms=1000")
    assert (made.returncode, made.stdout, made.stderr) == (0, b"", b"")
    listed = json.loads(frieda("topic", "list", "--format", "json").stdout)
    row = {"name": "life", "partitions": 3, "records": 0, "size_bytes": 0}
    assert row in listed
    described = json.loads(frieda("topic", "describe", "life", "--format", "json").stdout)
    assert described["configs"]["retention.ms"] == "1000"
    assert [partition["partition"] for partition in described["partitions"]] == [0, 1, 2]
    assert frieda("topic", "alter", "life", "--config", "retention.ms=77").returncode == 0
    text = frieda("topic", "describe", "life").stdout.decode()
    assert "retention.ms            77" in text
    assert "HIGH WATERMARK" in text
    assert frieda("topic", "delete", "life").returncode == 0
    gone = frieda("topic", "describe", "life")
    assert gone.returncode == ExitCode.NOT_FOUND
    assert b"life" in gone.stderr


def test_what_the_broker_refuses_is_one_sentence_and_an_exit_code(frieda: Run, topic: str) -> None:
    again = frieda("topic", "create", topic)
    assert again.returncode == ExitCode.REFUSED
    assert again.stderr.count(b"\n") == 1
    assert b"exists already" in again.stderr
    assert frieda("topic", "create", topic, "--if-not-exists").returncode == 0
    wrong = frieda("topic", "alter", topic, "--config", "retnetion.ms=1")
    assert wrong.returncode == ExitCode.REFUSED
    assert b"did you mean 'retention.ms'" in wrong.stderr
    assert frieda("topic", "delete", "nowhere").returncode == ExitCode.NOT_FOUND
    assert frieda("topic", "delete", "nowhere", "--if-exists").returncode == 0
    slash = frieda("topic", "create", "a/b")
    assert slash.returncode == ExitCode.REFUSED
    assert b"a/b" in slash.stderr


def test_no_broker_is_exit_code_3_and_names_the_address(frieda: Run) -> None:
    for command in (["topic", "list"], ["health"], ["produce", "t"], ["consume", "t"]):
        done = frieda(*command, "-b", "tcp://127.0.0.1:1", "--set", "connect_timeout_s=0.2")
        assert done.returncode == ExitCode.UNREACHABLE, command
        assert b"127.0.0.1:1" in done.stderr
        assert done.stderr.count(b"\n") == 1


# --- produce and consume ----------------------------------------------------------------------------------


def test_a_file_sent_whole_comes_back_byte_for_byte(
    frieda: Run, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(NOT_TEXT)
    sent = frieda("produce", topic, "--file", str(file), "--whole")
    assert sent.returncode == 0
    assert b"1 records, %d bytes" % len(NOT_TEXT) in sent.stderr
    read = frieda("consume", topic, "--from-beginning", "--exit-at-end", "--raw")
    assert read.returncode == 0
    assert read.stdout == NOT_TEXT


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_file_sent_as_lines_comes_back_byte_for_byte(
    frieda: Run, topic: str, tmp_path: Path, compression: str
) -> None:
    lines = NOT_TEXT * 40 + b"\n" + b"".join(b"line %d\r\n" % n for n in range(100_000))
    file = tmp_path / "file"
    file.write_bytes(lines)
    sent = frieda("produce", topic, "--file", str(file), "--compression", compression)
    assert sent.returncode == 0, sent.stderr
    assert b"%d records" % lines.count(b"\n") in sent.stderr
    read = frieda("consume", topic, "--from-beginning", "--exit-at-end")
    assert read.stdout == lines


def test_standard_input_is_read_and_the_last_line_needs_no_newline(frieda: Run, topic: str) -> None:
    assert frieda("produce", topic, stdin=b"one\n\nthree").returncode == 0
    read = frieda("consume", topic, "--from-beginning", "--exit-at-end")
    assert read.stdout == b"one\n\nthree\n"


def test_keys_headers_and_partitions_are_sent_and_shown(frieda: Run) -> None:
    frieda("topic", "create", "keyed", "--partitions", "3")
    lines = b"a\tone\nb\ttwo\ttabs\nno key\n"
    sent = frieda(
        "produce", "keyed", "--key-separator", r"\t", "--header", "from=test", "--partition", "2",
        stdin=lines,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    read = frieda(
        "consume", "keyed", "--from-beginning", "--exit-at-end", "--output", "%p:%o %k|%v|%h"
    )
    assert read.stdout == b"2:0 a|one|from=test\n2:1 b|two\ttabs|from=test\n2:2 |no key|from=test\n"
    as_json = frieda("consume", "keyed", "-p", "2", "--offset", "2", "-n", "1", "--output", "json")
    record = json.loads(as_json.stdout)
    assert (record["key"], record["value"], record["offset"]) == (None, "no key", 2)
    assert frieda("consume", "keyed", "--offset", "1").returncode == ExitCode.USAGE
    missing = frieda("consume", "keyed", "--partition", "9")
    assert missing.returncode == ExitCode.NOT_FOUND
    assert b"partitions 0 to 2, not 9" in missing.stderr
    assert frieda("produce", "keyed", "--partition", "9").returncode == ExitCode.NOT_FOUND


def test_a_group_goes_on_behind_what_was_written_out(frieda: Run, topic: str) -> None:
    frieda("produce", topic, stdin=b"".join(b"%d\n" % n for n in range(10)))
    first = frieda("consume", topic, "--group", "g", "--from-beginning", "-n", "4")
    assert first.stdout == b"0\n1\n2\n3\n"
    rest = frieda("consume", topic, "--group", "g", "--from-beginning", "--exit-at-end")
    assert rest.stdout == b"4\n5\n6\n7\n8\n9\n"
    nothing = frieda("consume", topic, "--group", "g", "--exit-at-end")
    assert (nothing.returncode, nothing.stdout) == (0, b"")


def test_reading_starts_at_an_offset_or_a_time(frieda: Run, topic: str) -> None:
    frieda("produce", topic, stdin=b"a\nb\nc\n")
    at_offset = frieda("consume", topic, "--offset", "1", "--exit-at-end")
    assert at_offset.stdout == b"b\nc\n"
    for time in ("0", "2001-01-01T00:00:00Z"):
        assert frieda("consume", topic, "--timestamp", time, "-n", "1").stdout == b"a\n"
    later = frieda("consume", topic, "--timestamp", "2100-01-01T00:00:00Z", "--exit-at-end")
    assert (later.returncode, later.stdout) == (0, b"")
    beyond = frieda("consume", topic, "--offset", "99")
    assert beyond.returncode == ExitCode.REFUSED
    assert b"has no offset 99; it holds 0 to 3" in beyond.stderr
    assert frieda("consume", topic, "--timestamp", "noon").returncode == ExitCode.USAGE


def test_a_missing_topic_is_said_at_once(frieda: Run) -> None:
    for command in ("produce", "consume"):
        done = frieda(command, "nowhere", stdin=b"x\n")
        assert done.returncode == ExitCode.NOT_FOUND
        assert b"nowhere" in done.stderr


def test_a_file_that_is_too_large_for_one_record_is_refused_before_it_is_read(
    frieda: Run, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "huge"
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    done = frieda("produce", topic, "--file", str(file), "--whole")
    assert done.returncode == ExitCode.USAGE
    assert b"do not fit into one record" in done.stderr


def test_a_record_that_the_topic_refuses_fails_the_command(frieda: Run) -> None:
    frieda("topic", "create", "small", "--config", "max.message.bytes=1024")
    done = frieda("produce", "small", "--whole", stdin=bytes(5000))
    assert done.returncode == ExitCode.REFUSED
    assert b"1 records failed: MESSAGE_TOO_LARGE" in done.stderr


def test_wrong_use_is_exit_code_2_in_a_sentence(frieda: Run, topic: str, tmp_path: Path) -> None:
    wrong = [
        ("produce", topic, "--whole", "--key-separator", ","),
        ("produce", topic, "--key", "k", "--key-separator", ","),
        ("produce", topic, "--key-separator", ""),
        ("produce", topic, "--header", "novalue"),
        ("produce", topic, "--file", str(tmp_path)),
        ("produce", topic, "--set", "lingr_ms=1"),
        ("consume", topic, "--output", "%q"),
        ("consume", topic, "--from-beginning", "--offset", "1"),
    ]
    for arguments in wrong:
        done = frieda(*arguments)
        assert done.returncode == ExitCode.USAGE, arguments
        assert b"Traceback" not in done.stderr
    missing = frieda("produce", topic, "--file", str(tmp_path / "missing"))
    assert missing.returncode != 0
    assert b"No such file" in missing.stderr


def test_settings_come_from_a_file_the_environment_and_flags(
    frieda: Run, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "client.toml"
    file.write_text('acks = 1\ncompresion = "gzip"\n')
    done = frieda("produce", topic, "--client-config", str(file), stdin=b"x\n")
    assert done.returncode == ExitCode.USAGE
    assert b"compresion" in done.stderr
    assert b"compression" in done.stderr
    file.write_text('compression = "gzip"\n')
    assert frieda("produce", topic, "--client-config", str(file), stdin=b"x\n").returncode == 0


def test_a_progress_bar_is_drawn_on_a_terminal_only(
    broker: BrokerProcess, frieda: Run, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"line\n" * 100_000)
    quiet = frieda("produce", topic, "--file", str(file))
    assert quiet.stderr.count(b"\n") == 1
    terminal, its_end = os.openpty()
    with open(terminal, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [sys.executable, "-m", "frieda", "produce", topic, "--file", str(file)],
            env=environment_for(broker.url) | {"TERM": "xterm"},
            stderr=its_end,
        )
        os.close(its_end)
        shown = bytearray()
        # The other end of a terminal that has closed is an error, not an end of file.
        with contextlib.suppress(OSError):
            while piece := screen.read(4096):
                shown += piece
        assert process.wait(timeout=60) == 0
    assert b"100%" in shown
    assert b"100000 records" in shown


# --- interruptions ----------------------------------------------------------------------------------------


def test_an_interrupted_produce_sends_what_it_read_and_says_so(
    broker: BrokerProcess, frieda: Run, topic: str
) -> None:
    process = started(broker, "produce", topic, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"first\nsecond\n")
    process.stdin.flush()
    # It is there once it can be read, which is also when the producer is in its loop.
    read = frieda("consume", topic, "--from-beginning", "-n", "2")
    assert read.stdout == b"first\nsecond\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert b"interrupted" in errors
    assert b"2 records" in errors


def test_an_interrupted_consume_commits_what_it_wrote(
    broker: BrokerProcess, frieda: Run, topic: str
) -> None:
    frieda("produce", topic, stdin=b"a\nb\n")
    process = started(
        broker, "consume", topic, "--group", "i", "--from-beginning", stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(4) == b"a\nb\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (ExitCode.INTERRUPTED, b"")
    frieda("produce", topic, stdin=b"c\n")
    rest = frieda("consume", topic, "--group", "i", "--exit-at-end")
    assert rest.stdout == b"c\n"


def test_a_reader_that_goes_away_ends_consume_quietly(
    broker: BrokerProcess, frieda: Run, topic: str
) -> None:
    frieda("produce", topic, stdin=b"line\n" * 200_000)
    process = started(broker, "consume", topic, "--from-beginning", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(5) == b"line\n"
    process.stdout.close()
    assert process.wait(timeout=60) == ExitCode.PIPE_CLOSED
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_full_pipe_does_not_hold_up_an_interruption(
    broker: BrokerProcess, frieda: Run, topic: str
) -> None:
    frieda("produce", topic, stdin=b"line\n" * 200_000)
    process = started(broker, "consume", topic, "--from-beginning", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(5) == b"line\n"  # and no more: the pipe fills up
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(timeout=60) == ExitCode.INTERRUPTED
    finally:
        process.kill()
        process.communicate()


# --- the rest ---------------------------------------------------------------------------------------------


def test_health_says_ok(frieda: Run) -> None:
    text = frieda("health")
    assert text.returncode == 0
    assert text.stdout.startswith(b"status")
    state = json.loads(frieda("health", "--format", "json").stdout)
    assert state["status"] == "ok"
    assert state["facts"]["connections_accepted"] > 0
    assert state["facts"]["connections_tcp"] == 1


def test_health_shows_the_listeners_and_the_buffers(frieda: Run, broker: BrokerProcess) -> None:
    lines = dict(line.split(maxsplit=1) for line in frieda("health").stdout.decode().splitlines())
    assert lines["listeners"] == broker.url
    assert lines["connections_tcp"] == "1"
    assert {"buffers_hits", "buffers_misses", "buffers_waits", "buffers_high_water_4096"} < set(
        lines
    )


def test_the_transport_can_be_chosen(frieda: Run) -> None:
    assert frieda("health", "--transport", "tcp").returncode == 0
    wrong = frieda("health", "--transport", "tpc")
    assert wrong.returncode == ExitCode.USAGE
    assert b"transport = 'tpc': must be one of auto, " in wrong.stderr
    missing = frieda("consume", "no-topic", "--transport", "memory", "--set", "request_timeout_s=1")
    assert missing.returncode != 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(frieda: Run, shell: str) -> None:
    done = frieda("completion", shell)
    assert done.returncode == 0
    assert b"_FRIEDA_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    "command",
    [["topic"], ["topic", "create"], ["topic", "list"], ["topic", "describe"], ["topic", "alter"],
     ["topic", "delete"], ["produce"], ["consume"], ["health"], ["completion"]],
    ids=" ".join,
)  # fmt: skip
def test_every_command_has_help(frieda: Run, command: list[str]) -> None:
    done = frieda(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(b"Usage: ")

"""Escapes, formats and lines of the produce and consume commands."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.cli.escapes import unescape
from frieda.cli.line_reader import LineReader
from frieda.cli.record_format import record_formatter
from frieda.errors import ConfigError
from frieda.model import Record

RECORD = Record("t", 3, 42, 1000, b"k\xff", b"v", (("a", b"1"), ("b", None)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", b"plain"),
        (r"\t\n\r\0\\", b"\t\n\r\0\\"),
        (r"\x00\xfF;", b"\x00\xff;"),
        (r"\\n", b"\\n"),
        ("ü", "ü".encode()),
    ],
)
def test_escapes_become_the_bytes_they_stand_for(text: str, expected: bytes) -> None:
    assert unescape(text, "--x") == expected


@pytest.mark.parametrize("text", [r"\q", "\\", r"\x1", r"a\xzz"])
def test_a_wrong_escape_is_named_with_its_option(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--x: .* is not an escape"):
        unescape(text, "--x")


@given(st.lists(st.binary(max_size=8), max_size=20))
def test_lines_are_the_same_however_the_bytes_are_cut_into_chunks(chunks: list[bytes]) -> None:
    reader = LineReader(1000)
    lines = [line for chunk in chunks for line in reader.feed(chunk)] + reader.end()
    whole = b"".join(chunks)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert lines == expected
    assert reader.lines == len(expected)


def test_a_line_longer_than_a_record_is_refused_before_it_is_gathered() -> None:
    reader = LineReader(10)
    assert reader.feed(b"0123456789\n01234") == [b"0123456789"]
    with pytest.raises(
        ConfigError, match="after line 1 has 11 bytes or more; a record can hold 10"
    ):
        reader.feed(b"567890")


def test_a_long_line_in_the_middle_of_a_chunk_is_refused_too() -> None:
    with pytest.raises(ConfigError, match="has 4 bytes or more; a record can hold 3"):
        LineReader(3).feed(b"abc\nabcd\nab\n")


def test_a_format_has_every_field() -> None:
    formatter, has_newline = record_formatter(r"%t/%p/%o %T\t%k=%v [%h] 100%%")
    assert formatter(RECORD) == b"t/3/42 1000\tk\xff=v [a=1,b=] 100%"
    assert not has_newline


def test_a_format_that_ends_its_lines_itself_is_seen() -> None:
    formatter, has_newline = record_formatter(r"%v\n")
    assert formatter(RECORD) == b"v\n"
    assert has_newline


def test_json_keeps_text_and_marks_other_bytes() -> None:
    formatter, _ = record_formatter("json")
    assert json.loads(formatter(RECORD)) == {
        "topic": "t",
        "partition": 3,
        "offset": 42,
        "timestamp_ms": 1000,
        "key": {"base64": "a/8="},
        "value": "v",
        "headers": [["a", "1"], ["b", None]],
    }
    nothing = json.loads(formatter(RECORD._replace(key=None, value=None, headers=())))
    assert nothing["key"] is None
    assert nothing["value"] is None


@pytest.mark.parametrize("output", ["%q", "values", "%v %"])
def test_an_unknown_output_is_refused(output: str) -> None:
    with pytest.raises(ConfigError, match="--output"):
        record_formatter(output)

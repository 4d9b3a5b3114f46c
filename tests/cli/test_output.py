"""Tables as text and as JSON."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from frieda.cli.output import as_json, as_text, show_facts, show_table


def test_numbers_are_aligned_to_the_right_and_texts_to_the_left() -> None:
    rows = [{"topic": "a", "size_bytes": 5}, {"topic": "longer", "size_bytes": 12345}]
    assert as_text(["topic", "size_bytes"], rows).splitlines() == [
        "TOPIC   SIZE BYTES",
        "a                5",
        "longer       12345",
    ]


def test_a_table_without_rows_is_its_heading() -> None:
    assert as_text(["topic", "offset"], []) == "TOPIC  OFFSET"


def test_what_is_missing_is_a_dash_and_lists_are_joined() -> None:
    row = {"a": None, "b": [1, 2], "c": True, "d": 1.5}
    assert as_text(["a", "b", "c", "d", "e"], [row]).splitlines()[1].split() == [
        "-",
        "1,2",
        "yes",
        "1.500",
        "-",
    ]


def test_control_codes_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in as_text(["name"], [{"name": "\x1b[31mred\n"}])


def test_json_keeps_every_key_and_writes_uuids_as_text() -> None:
    identifier = UUID(int=1)
    assert json.loads(as_json([{"id": identifier, "n": 1}])) == [{"id": str(identifier), "n": 1}]


def test_a_table_is_printed_in_the_wanted_format(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(["n"], [{"n": 1}], "json")
    assert json.loads(capsys.readouterr().out) == [{"n": 1}]
    show_table(["n"], [{"n": 1}], "text")
    assert capsys.readouterr().out == "N\n1\n"


def test_facts_are_printed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    show_facts({"state": "ok", "in_flight": 3}, "text")
    assert capsys.readouterr().out == "state      ok\nin_flight  3\n"
    show_facts({"state": "ok"}, "json")
    assert json.loads(capsys.readouterr().out) == {"state": "ok"}

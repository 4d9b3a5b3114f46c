"""An event is read as JSON: order, spacing and further fields do not matter, nonsense is an error."""

from __future__ import annotations

import json

import pytest

from frieda.ysb.parsing import event_parser

EVENT = {"ad_id": "x", "event_type": "view", "event_time": "1700000000123"}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(EVENT),
        json.dumps(dict(reversed(EVENT.items())), indent=4),
        json.dumps(EVENT | {"more": {"nested": [1, 2, {"ad_id": "no"}]}, "user_id": None}),
        json.dumps(EVENT | {"event_time": 1700000000123}),
        '{"ad_id": "\\u0078", "event_type": "vi\\u0065w", "event_time": "1700000000123"}',
    ],
)
def test_any_json_with_the_three_fields_is_an_event(text: str) -> None:
    parse, _ = event_parser()
    event = parse(text.encode())
    assert (event.ad_id, event.event_type, event.event_time) == ("x", "view", 1700000000123)
    assert event.sent_ns == 0


def test_a_sampled_event_tells_when_it_was_sent() -> None:
    parse, _ = event_parser()
    assert parse(json.dumps(EVENT | {"sent_ns": 17}).encode()).sent_ns == 17


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"nonsense",
        json.dumps(EVENT).encode()[:-1],
        json.dumps(EVENT | {"event_time": "soon"}).encode(),
        json.dumps(EVENT | {"event_time": "-1"}).encode(),
        json.dumps(EVENT | {"event_time": str(2**60)}).encode(),
        json.dumps(EVENT | {"ad_id": 7}).encode(),
    ],
)
def test_what_is_no_event_raises_the_parsers_error(value: bytes) -> None:
    parse, error = event_parser()
    with pytest.raises(error):
        parse(value)

"""What a run says of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from frieda.ysb.lag import LagTrend
from frieda.ysb.outcome import YsbOutcome
from frieda.ysb.result import holds


def outcome(lag: LagTrend) -> YsbOutcome:
    """An outcome of which only the lag is looked at."""
    return cast(YsbOutcome, cast(Any, SimpleNamespace(lag=lag, settings=SimpleNamespace(rate=1e3))))


@pytest.mark.parametrize(
    ("lag", "sentence"),
    [
        (LagTrend(5, 20, 0.0, False), "it does not grow: 1000/s hold"),
        (LagTrend(5, 900, 100.0, True), "it GROWS by 100 events a second: 1000/s do not hold"),
        (LagTrend(2500, 4000, 0.0, False), "that is 2.5 s of events, so 1000/s do not hold"),
        (LagTrend(5, 20, None, None), "too short to say whether it grows"),
    ],
)
def test_a_rate_holds_when_the_lag_neither_grows_nor_is_longer_than_a_second(
    lag: LagTrend, sentence: str
) -> None:
    assert holds(outcome(lag)).endswith(sentence)

"""The charts of the benchmarks as values, PURE: panels of points with ranges, percentile curves, scatter plots.

`frieda.bench.drawing` draws them. Colours and markers are those of the system in every figure. Axes of latency and
throughput are logarithmic: there a ratio has the same length everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from frieda.bench.histogram import CurvePoint
from frieda.bench.ticks import Unit


class Look(NamedTuple):
    """How a series looks in every figure."""

    colour: str
    marker: str


LOOKS: Final[Mapping[str, Look]] = {
    "Frieda shm": Look("#0b4f8a", "o"),
    "Frieda tcp": Look("#3aa0d8", "s"),
    "Frieda verbs": Look("#0ca678", "^"),
    "Kafka": Look("#d9480f", "D"),
    "Kafka (aiokafka)": Look("#f2a900", "v"),
    "Redis Streams": Look("#c2255c", "P"),
    "NATS JetStream": Look("#2b8a3e", "X"),
}
_OTHERS: Final = (
    *(Look("#862e9c", "o"), Look("#5c677d", "s"), Look("#845c1c", "^")),
    *(Look("#1098ad", "D"), Look("#e8590c", "v"), Look("#495057", "P")),
)


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of each series; one that is no known system gets one of the others, in order."""
    found: dict[str, Look] = {}
    others = 0
    for name in names:
        if name in LOOKS:
            found[name] = LOOKS[name]
        else:
            found[name] = _OTHERS[others % len(_OTHERS)]
            others += 1
    return found


class Mark(NamedTuple):
    """What the rounds gave at one place of the x-axis (an index of the chart's categories)."""

    at: int
    median: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes: for each series its marks."""

    title: str
    y_label: str
    unit: Unit
    marks: Mapping[str, Sequence[Mark]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelChart:
    """Panels over the same categories; `notes` stand beneath. `name` is that of its file."""

    name: str
    title: str
    subtitle: str
    x_label: str
    categories: Sequence[str]
    panels: Sequence[Panel]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A percentile curve: all rounds together, each of them when there are several, and a share of that latency."""

    total: Sequence[CurvePoint]
    rounds: Sequence[Sequence[CurvePoint]] = ()
    share: Sequence[CurvePoint] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveChart:
    """Percentile curves; the x-axis is logarithmic in 1 / (1 - p), as in HdrHistogram's plotter."""

    name: str
    title: str
    subtitle: str
    curves: Mapping[str, Curve]
    x_label: str = "share of the records"
    y_label: str = "latency"
    share_label: str = ""
    """What the dashed curves are, the shares."""
    notes: Sequence[str] = ()


class Dot(NamedTuple):
    """One measured point of a scatter: where it lies and what stands beside it."""

    x: float
    y: float
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatterChart:
    """Measured points (`dots`) and lines over two logarithmic axes; a line named as dots has their colour."""

    name: str
    title: str
    subtitle: str
    x_label: str
    x_unit: Unit
    y_label: str
    y_unit: Unit
    dots: Mapping[str, Sequence[Dot]]
    lines: Mapping[str, Sequence[Dot]] = field(default_factory=dict)
    equal_axes: bool = False
    """Both axes span the same, and the diagonal is drawn."""
    joined: bool = False
    """The dots of a series are joined in their order."""
    notes: Sequence[str] = ()


Chart = PanelChart | CurveChart | ScatterChart

"""The file of results: every run of one command, where it ran, with what settings, and its histograms.

One JSON document, and beside it for each run a HdrHistogram interval log (.hlog) and percentile distribution
(.hgrm), which the plotters of hdrhistogram.org read. What draws, reports and compares reads only this.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from frieda.bench.histogram import LatencyHistogram
from frieda.errors import ConfigError

FORMAT: Final = "frieda-bench/1"
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
RESULT_FILE: Final = "result.json"
_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("case", "system", "driver", "histogram"), str),
    **dict.fromkeys(("round", "records"), int),
    **dict.fromkeys(("elapsed_s", "records_per_sec"), (int, float)),
    **dict.fromkeys(("settings", "latency_us"), dict),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one case. Latencies in microseconds; histograms in ns, encoded as HdrHistogram V2 base64."""

    case: str
    """What is compared, e.g. "frieda shm, 8 producers, 100 B": the same name in every round."""
    round: int
    system: str
    driver: str
    settings: Mapping[str, object]
    """Flat: producers, processes, record_size, acks, replication, brokers, transport, rate, arrivals, durability, seed.

    "contender" is the system's name in the case, "point" the rest of it; "mode" is latency or throughput, "loop" open
    or closed, "started" whether the system was started for the run or given by address; "rate_share" of which rate
    is in the file's extra "rates". `frieda.bench.drive` writes them all.
    """
    server_settings: Mapping[str, object] = field(default_factory=dict)
    client_settings: Mapping[str, object] = field(default_factory=dict)
    records: int
    errors: int = 0
    elapsed_s: float
    records_per_sec: float
    mb_per_sec: float = 0.0
    latency_us: Mapping[str, float | None]
    service_time_us: Mapping[str, float | None] | None = None
    lateness_us: Mapping[str, float] | None = None
    """Of an open loop: mean, max and late_sends whatever the cause; own_mean, own_max, own_late_sends of the load
    generator itself; held_back by the system; sends."""
    backlog: Mapping[str, float] | None = None
    """Of an open loop, in records: see `frieda.bench.verdict.Backlog`."""
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    """Processor time of the measured part: "server", "clients"."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """What only one kind of benchmark has."""
    invalid_because: str | None = None
    """Why the run says nothing about the system (the generator could not keep up); None when it is valid."""
    histogram: str
    service_histogram: str | None = None
    hlog: str = ""

    @property
    def valid(self) -> bool:
        """Whether the figures are the system's."""
        return self.invalid_because is None

    def latency(self) -> LatencyHistogram:
        """The latencies. Raises ValueError when they cannot be decoded."""
        histogram = LatencyHistogram()
        histogram.merge(self.histogram)
        return histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What one command measured. `kind`: compare, matrix, end-to-end, model, roofline, ysb..."""

    kind: str
    command: str
    """The command line that makes them again."""
    environment: Mapping[str, object]
    settings: Mapping[str, object] = field(default_factory=dict)
    runs: Sequence[Run]
    extra: Mapping[str, object] = field(default_factory=dict)

    def cases(self) -> dict[str, list[Run]]:
        """The runs of each case, in the order in which the cases first ran."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.case, []).append(run)
        return found


def write_results(folder: Path, results: Results) -> Path:
    """Write result.json and the histograms of each run into `folder`, made when missing. Raises OSError.

    A result.json that is there is replaced in one step: it is always whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stems: dict[str, str] = {}
    for run in results.runs:
        stem = _stem(run.case, stems)
        (folder / f"{stem}.{run.round}.hlog").write_text(run.hlog, encoding="ascii")
        run.latency().write_hgrm(folder / f"{stem}.{run.round}.hgrm")
    path = folder / RESULT_FILE
    runs = [{**asdict(run), "valid": run.valid} for run in results.runs]
    document = {"format": FORMAT, **asdict(results), "runs": runs}
    unfinished = folder / f".{RESULT_FILE}"
    unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
    return path


def read_results(path: Path) -> Results:
    """Read a file of results, or the folder that holds one. Raises ConfigError for anything else."""
    if path.is_dir():
        path = path / RESULT_FILE
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(
                f"{path} is larger than {MAX_FILE_BYTES} bytes: not a file of results"
            )
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a file of results: {error}") from None
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise ConfigError(f"{path} is not a file of results of this version ({FORMAT})")
    try:
        runs = tuple(_run(values) for values in document.pop("runs"))
        return Results(runs=runs, **document)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from None


def _run(values: dict[str, Any]) -> Run:
    values.pop("valid", None)  # for other readers; here it follows from `invalid_because`
    for name, kind in _KINDS.items():
        if not isinstance(values.get(name), kind) or isinstance(values.get(name), bool):
            raise TypeError(f"a run's {name} is {values.get(name)!r:.80}")
    run = Run(**values)
    run.latency()
    return run


def _stem(case: str, stems: dict[str, str]) -> str:
    """A file name for this case, which no other of `stems` (by file name) has."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", case).strip("-.")[:150] or "case"
    stem, number = plain, 1
    while stems.setdefault(stem, case) != case:
        number += 1
        stem = f"{plain}-{number}"
    return stem


def all_runs(files: Sequence[Results]) -> Iterator[Run]:
    """Every run of several files."""
    for results in files:
        yield from results.runs

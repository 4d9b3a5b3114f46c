"""The file of results: every run of one command, where it ran, with what settings, and its histograms.

One JSON document, and beside it for each run a HdrHistogram interval log (.hlog) and percentile distribution
(.hgrm), which the plotters of hdrhistogram.org read. What draws, reports and compares reads only this.
"""

from __future__ import annotations

import json
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one case. Latencies in microseconds; histograms in ns, encoded as HdrHistogram V2 base64."""

    case: str
    """What is compared, e.g. "frieda shm, 8 producers, 100 B": the same name in every round."""
    round: int
    system: str
    driver: str
    settings: Mapping[str, object]
    """Flat: producers, processes, record_size, acks, replication, brokers, transport, rate, arrivals, durability..."""
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
    backlog: Mapping[str, float] | None = None
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
    """Write result.json and the histograms of each run into `folder`, made when missing. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for run in results.runs:
        stem = f"{_file_name(run.case)}.{run.round}"
        (folder / f"{stem}.hlog").write_text(run.hlog, encoding="ascii")
        run.latency().write_hgrm(folder / f"{stem}.hgrm")
    path = folder / RESULT_FILE
    document = {"format": FORMAT, **asdict(results)}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
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
    except ValueError as error:
        raise ConfigError(f"{path} is not a file of results: {error}") from None
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise ConfigError(f"{path} is not a file of results of this version ({FORMAT})")
    try:
        runs = tuple(_run(values) for values in document.pop("runs"))
        return Results(runs=runs, **document)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from None


def _run(values: dict[str, Any]) -> Run:
    run = Run(**values)
    run.latency()
    return run


def _file_name(case: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", case).strip("-")


def all_runs(files: Sequence[Results]) -> Iterator[Run]:
    """Every run of several files."""
    for results in files:
        yield from results.runs

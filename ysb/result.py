"""A run of the benchmark as `bench.results` holds it, as lines for people, and what spoils it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from frieda.bench.histogram import LatencyHistogram, Window, hlog
from frieda.bench.report import latencies_us
from frieda.bench.results import Run
from frieda.ysb.outcome import YsbOutcome, YsbProgress

LATE_SHARE: Final = 0.01
"""So many ticks may leave later than 100 ms by the generator's own fault."""
MIB: Final = 1024 * 1024
EVENT_BYTES: Final = 254
"""Of an ad event, give or take the length of its ad type."""
COLUMNS: Final = (
    "latency",
    "samples",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "p99.9_ms",
    "max_ms",
    "mean_ms",
)


def window_latency(outcome: YsbOutcome) -> LatencyHistogram:
    """From each campaign's window's end to the last write for it; 0 where its last view was written before its end."""
    histogram = LatencyHistogram()
    for latency_ns in outcome.latencies_ns.values():
        histogram.record(max(0, latency_ns))
    return histogram


def invalid_because(outcome: YsbOutcome) -> str | None:
    """Why the latencies say nothing of the system; None when they do."""
    generated = outcome.generated
    if outcome.kills:
        return f"workers of the pipeline were killed {outcome.kills} times: it shows exactness, not latency"
    if generated["late_ticks"] > LATE_SHARE * max(1, generated["ticks"]):
        return (
            f"the generator could not keep up: {generated['late_ticks']} of {generated['ticks']} ticks left more "
            "than 100 ms late by its own fault"
        )
    return None


def failures(outcome: YsbOutcome) -> list[str]:
    """What was not as it must be, a sentence each: events lost, counts wrong, a lag that grows."""
    generated, found = outcome.generated, []
    if generated["errors"]:
        found.append(
            f"{generated['errors']} events were refused, so counts cannot be exact: {generated['last_error']}"
        )
    if outcome.left_behind:
        found.append(
            f"the pipeline was {outcome.left_behind} events behind when its {outcome.settings.drain_timeout_s:g} s "
            "to catch up were over"
        )
    if not outcome.check.exact:
        found.append(outcome.check.sentence())
    return found


def holds(outcome: YsbOutcome) -> str:
    """Whether the rate holds: the sentence about the lag."""
    lag, settings = outcome.lag, outcome.settings
    behind = f"lag {lag.mean:.0f} events on average, {lag.largest} at most"
    if lag.grows is None or lag.growth_per_s is None:
        return f"{behind}; too short to say whether it grows"
    if lag.grows:
        return f"{behind}; it GROWS by {lag.growth_per_s:.0f} events a second: {settings.rate:g}/s do not hold"
    if lag.mean > settings.rate:
        late_s = lag.mean / settings.rate
        return f"{behind}; that is {late_s:.1f} s of events, so {settings.rate:g}/s do not hold"
    return f"{behind}; it does not grow: {settings.rate:g}/s hold"


def as_run(
    outcome: YsbOutcome,
    *,
    case: str,
    system: str,
    durability: str,
    transport: str | None = None,
    server_settings: Mapping[str, object] | None = None,
) -> Run:
    """The run for a file of results: latency over windows and campaigns, the rest in `extra`."""
    settings, generated = outcome.settings, outcome.generated
    latency = window_latency(outcome)
    measured = max(0, outcome.counted["events"] - round(settings.rate * settings.warm_up_s))
    events_per_s = measured / outcome.elapsed_s
    return Run(
        case=case,
        round=settings.round,
        system=system,
        driver=settings.driver,
        settings={
            "mode": "ysb",
            "rate": settings.rate,
            "arrivals": "constant",
            "producers": settings.producers,
            "processes": settings.processes,
            "record_size": EVENT_BYTES,
            "acks": "all" if settings.acks == -1 else settings.acks,
            "linger_ms": settings.linger_ms,
            "replication": 1,
            "brokers": 1,
            "durability": durability,
            "transport": transport,
            "partitions": settings.partitions,
            "workers": settings.workers,
            "campaigns": settings.campaigns,
            "ads_per_campaign": settings.ads_per_campaign,
            "window_ms": settings.window_ms,
            "allowed_lateness_ms": settings.allowed_lateness_ms,
            "skew": None if settings.skew is None else asdict(settings.skew),
            "sink_ms": settings.sink_ms,
            "tick_ms": settings.tick_ms,
            "duration_s": settings.duration_s,
            "warm_up_s": settings.warm_up_s,
            "batch_bytes": settings.batch_bytes,
            "polling": settings.polling,
            "seed": settings.seed,
        },
        server_settings=dict(server_settings or {}),
        client_settings=dict(outcome.client_settings),
        records=measured,
        errors=generated["errors"],
        elapsed_s=round(outcome.elapsed_s, 6),
        records_per_sec=round(events_per_s, 3),
        mb_per_sec=round(events_per_s * EVENT_BYTES / MIB, 6),
        latency_us=latencies_us(latency),
        lateness_us={
            "mean": round(generated["mean_late_us"], 3),
            "max": round(generated["max_late_us"], 3),
            "late_sends": generated["late_ticks"],
        },
        cpu_s={
            "server": round(outcome.cpu_s["server"], 3),
            "clients": round(outcome.cpu_s["generators"] + outcome.cpu_s["pipelines"], 3),
            "generators": round(outcome.cpu_s["generators"], 3),
            "pipelines": round(outcome.cpu_s["pipelines"], 3),
            "redis": round(outcome.cpu_s["redis"], 3),
        },
        extra={
            "broker_share_us": latencies_us(outcome.broker_share),
            "broker_share_histogram": outcome.broker_share.encode(),
            "counts": outcome.check.sentence(),
            "exact": outcome.check.exact,
            "events": dict(outcome.counted),
            "windows": len(outcome.latencies_ns),
            "written_before_their_end": sum(each < 0 for each in outcome.latencies_ns.values()),
            "original_reader_ms": original_reader_ms(outcome),
            "lag": asdict(outcome.lag),
            "lag_samples": [
                (round(at_s, 3), due, acked, taken) for at_s, due, acked, taken in outcome.samples
            ],
            "left_behind": outcome.left_behind,
            "held_s": round(generated["held_s"], 3),
            "writes": outcome.write_times.count,
            "write_us": latencies_us(outcome.write_times),
            "failures": failures(outcome),
        },
        invalid_because=invalid_because(outcome),
        histogram=latency.encode(),
        hlog=hlog(outcome.start_ms / 1000, _by_window(outcome)),
    )


def original_reader_ms(outcome: YsbOutcome) -> dict[str, float]:
    """What the original benchmark's reader makes of the same run: time_updated less the window's START, in whole ms."""
    found = sorted(each.time_updated_ms - each.window_ms for each in outcome.updates)
    if not found:
        return {}
    return {"median": found[len(found) // 2], "max": found[-1], "windows": len(found)}


def _by_window(outcome: YsbOutcome) -> list[Window]:
    """One line of the interval log for each window."""
    size_ns = outcome.settings.window_ms * 1_000_000
    histograms: dict[int, LatencyHistogram] = {}
    for (_, window_ms), latency_ns in outcome.latencies_ns.items():
        histograms.setdefault(window_ms, LatencyHistogram()).record(max(0, latency_ns))
    return [
        Window(window_ms * 1_000_000, window_ms * 1_000_000 + size_ns, histograms[window_ms])
        for window_ms in sorted(histograms)
    ]


def progress_line(progress: YsbProgress) -> str:
    """The line that is printed about every second."""
    behind = "" if progress.behind_ms is None else f" ({progress.behind_ms:.0f} ms)"
    window = (
        ""
        if progress.window_latency_ms is None
        else f", window latency {progress.window_latency_ms:.1f} ms"
    )
    kills = f", {progress.kills} kills" if progress.kills else ""
    return (
        f"{progress.elapsed_s:6.1f} s: {progress.sent_per_s:9.0f} events/s sent, "
        f"{progress.taken_per_s:9.0f} taken, lag {progress.lag}{behind}{window}{kills}"
    )


def latency_rows(histograms: Sequence[tuple[str, LatencyHistogram]]) -> list[dict[str, object]]:
    """Rows of the percentile table, in ms; None where the samples cannot carry it."""
    rows: list[dict[str, object]] = []
    for name, histogram in histograms:
        values = {
            f"{key}_ms": None if value is None else value / 1000
            for key, value in latencies_us(histogram).items()
        }
        rows.append({"latency": name, "samples": histogram.count, **values})
    return rows


def summary_lines(outcome: YsbOutcome) -> list[str]:
    """What is said beside the table."""
    counted, cpu = outcome.counted, outcome.cpu_s
    seconds = max(outcome.elapsed_s, 1e-9)
    used = ", ".join(f"{name} {value / seconds:.2f}" for name, value in cpu.items())
    lines = [
        f"{counted['events']} events, {counted['views']} views ({counted['late']} late, {counted['dropped']} "
        f"dropped, {counted['malformed']} malformed, {counted['unjoined']} without a campaign)",
        holds(outcome),
        f"cores used: {used}",
        f"counts {outcome.check.sentence()}" if outcome.check.exact else "",
        *failures(outcome),
    ]
    spoiled = invalid_because(outcome)
    if spoiled is not None:
        lines.append(f"latencies are not valid: {spoiled}")
    return [line for line in lines if line]
